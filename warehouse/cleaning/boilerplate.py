"""Phrases that tools and web pages leave behind."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from warehouse.block import Block
from warehouse.cleaning.findings import Action, Findings, findings, of_pattern
from warehouse.cleaning.parameters import check_texts
from warehouse.errors import InputError
from warehouse.facts import matches

PATTERNS: Mapping[str, str] = {
    "placeholder": (
        r"< ?no ?-?_?(?:input|output)[ .]*>|[\[<](?:insert|enter|add) [\w' ]{2,40}(?: here)?[\]>]|lorem ipsum dolor"
    ),
    "generator_note": (
        r"\bnote: this (?:response|answer|text|content) (?:was|is|has been) (?:\w+ )?(?:generated|written|created)"
        r"|\b(?:generated|written) by (?:chatgpt|gpt-?[345]|an ai (?:assistant|model))|\bregenerate response\b"
        r"|\bas of my (?:last )?(?:knowledge (?:cutoff|update)|training)|\[/?INST\]|<</?SYS>>"
        r"|<\|(?:im_start|im_end|endoftext|eot_id|assistant|user|end)\|>"
        r"|(?:^|\n)### (?:Instruction|Response|Human|Assistant):"
    ),
    "page_residue": (
        r"&(?:nbsp|amp;(?:quot|amp|lt|gt|nbsp|#\d+)|#0?39|#x27);|<br ?/?>|</?font\b"
        r"|\b(?:accept (?:all )?cookies|skip to (?:main )?content|all rights reserved|subscribe to our newsletter"
        r"|share (?:this )?on (?:facebook|twitter)|click here to|read more ?[»›…]|enable javascript"
        r"|terms of (?:use|service) (?:and|\|) privacy policy)\b"
    ),
    "pleasantry": (
        r"\A(?:sure|certainly|of course|absolutely|great question|no problem)[!,.] |\bhope (?:this|that) helps\b"
        r"|\b(?:let me know|feel free to (?:ask|reach)|don['’]t hesitate to ask) if (?:you|there)|\bhappy to help\b"
        r"|\bis there anything else (?:I can|you)"
    ),
}  # whatever the case of their letters
MEANT = r"(?i)lorem|placeholder|dummy|template|filler|\[insert|<insert|html|xml|web ?page|website"
DEFAULT = ("placeholder", "generator_note", "page_residue")


@dataclass(frozen=True, slots=True)
class Boilerplate:
    """Of `kinds`: placeholders nobody filled in (`<noinput>`, `[insert name]`), notes of a generator and its control
    tokens, residue of web pages, and pleasantries ("Sure! Here is", "I hope this helps"), which are off by default:
    they make a reply no worse an answer. `phrases` are further texts, whatever their case.

    Only replies are searched, and placeholders also in prompts. A row that shows code or whose prompt asks for
    placeholders or markup is not searched for placeholders and residue.
    """

    kinds: Sequence[str] = DEFAULT
    phrases: Sequence[str] = ()

    reasons: ClassVar[tuple[str, ...]] = (*PATTERNS, "phrase")
    reads: ClassVar[tuple[str, ...]] = ("has_code",)
    default_action: ClassVar[Action] = "drop"

    def __post_init__(self) -> None:
        check_texts("kinds", self.kinds, known=tuple(PATTERNS))
        check_texts("phrases", self.phrases)
        if not self.kinds and not self.phrases:
            raise InputError(
                f"kinds and phrases are empty: the filter would do nothing; known kinds: {', '.join(PATTERNS)}"
            )

    def __call__(self, block: Block) -> Findings:
        spoken = block.is_user | block.is_assistant
        meant = np.asarray(block.column("has_code")) | matches(block.user_text, MEANT)
        found = []
        for kind, pattern in self._patterns().items():
            among = spoken if kind == "placeholder" else block.is_assistant
            if kind in ("placeholder", "page_residue"):
                among = among & ~meant[block.row_of_turn]
            turns = np.flatnonzero(among)
            texts = block.contents.take(pa.array(turns))
            found.append(of_pattern(kind, block, turns, texts, matches(texts, pattern), pattern))
        return findings(found)

    def _patterns(self) -> dict[str, str]:
        chosen = {kind: f"(?i){pattern}" for kind, pattern in PATTERNS.items() if kind in self.kinds}
        own = {"phrase": "(?i)" + "|".join(map(re.escape, self.phrases))} if self.phrases else {}
        return chosen | own
