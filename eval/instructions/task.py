"""The task of following instructions that a program can verify."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from eval.instructions.table import fault, follows, follows_loosely
from eval.protocol import Item, Score
from eval.replying import Replying
from eval.rows import prompt_of
from warehouse.records import Example


@dataclass(frozen=True, slots=True)
class Instructions(Replying):
    """Whether a reply does all that its prompt asks for (`prompt_strict`, 0 or 1), and what share of it
    (`instruction_strict`); IFEval, Zhou et al. 2023.

    `prompt_loose` and `instruction_loose` also count what holds once the reply's first line, last line or asterisks
    are taken away: an introduction or markdown does not fail it. The share is averaged over instructions, not over
    prompts. Rows hold meta `instruction_id_list` and `kwargs`, one mapping of arguments per instruction; they need no
    gold reply.
    """

    max_tokens: int = 1280

    name: ClassVar[str] = "instructions"
    reads: ClassVar[tuple[str, ...]] = ("instruction_id_list", "kwargs")

    def problem(self, row: Example) -> str:
        ids, given = row.meta.get("instruction_id_list"), row.meta.get("kwargs")
        if not prompt_of(row):
            return "has no prompt"
        if not isinstance(ids, Sequence) or isinstance(ids, str) or not ids:
            return "must list its instructions in meta `instruction_id_list`"
        if not isinstance(given, Sequence) or len(given) != len(ids):
            return f"must hold meta `kwargs`, a list of {len(ids)} mappings, one per instruction"
        return next(filter(None, (fault(name, known) for name, known in instructions_of(row))), "")

    def grade(self, item: Item, reply: str) -> Score:
        asked = instructions_of(item.example)
        met = [follows(reply, name, known) for name, known in asked]
        loose = [follows_loosely(reply, name, known) for name, known in asked]
        values = {
            "prompt_strict": float(all(met)),
            "instruction_strict": sum(met) / len(met),
            "prompt_loose": float(all(loose)),
            "instruction_loose": sum(loose) / len(loose),
        }
        failed = [name for (name, _), did in zip(asked, met, strict=True) if not did]
        return Score(values, detail={"parts": len(met), "failed": failed})


def instructions_of(row: Example) -> list[tuple[str, Mapping[str, Any]]]:
    """Id and arguments of each instruction; arguments without a value, as some tables hold them, are left out."""
    ids, given = row.meta["instruction_id_list"], row.meta["kwargs"]
    return [
        (name, {key: value for key, value in (known or {}).items() if value is not None})
        for name, known in zip(ids, given, strict=True)
    ]
