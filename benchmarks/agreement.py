"""The same items scored by Winnow, by lm-eval and by inspect-ai: equal item by item, or the items that differ.

python -m benchmarks.agreement [--items N] [--folder FOLDER]

100 questions of the generated world, answered freely; 100 with four replies to choose from, by the likelihood of the
reply's text; the same with the replies under letters, by the likelihood of the letter. The model is winnow-tiny after
450 rows, in float32; its chat template is the tokenizer's template everywhere. lm-eval and inspect-ai run their own
code on it through transformers. What is not installed is left out and said. Exits 1 where an item differs.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.evaluation_cases import LETTERS, asked, chosen, lettered, tuned
from eval.assess import assess
from eval.protocol import Item
from eval.suite import Ask, Suite
from eval.table import TASKS
from models.local import LocalModel
from warehouse.records import Example

TOKENS = 32
SHOWN = 5
ROUNDING = 1e-5  # of probabilities; what is right or wrong must be equal
Values = Mapping[str, float]  # item to what it is worth
CASES = (
    ("replies", "exact_match"),
    ("choices by text", "accuracy"),
    ("choices by text", "accuracy_norm"),
    ("choices by text", "p_correct"),
    ("choices by letter", "accuracy"),
)


def ours(model: LocalModel, rows: Sequence[Example], task: str, metric: str) -> Values:
    made = TASKS[task](examples=tuple(rows), **({"max_tokens": TOKENS} if task == "exact_match" else {}))
    answer = assess(made, {"tuned": model}, "agreement", np.random.default_rng(0))
    return {row.item_id: row.value for row in answer.items if row.metric == metric}


def by_lm_eval(model: LocalModel, rows: Sequence[Example], task: str, metric: str) -> Values:
    ask: Ask = "reply" if task == "exact_match" else "choice"
    suite = Suite(tuple(rows), ask=ask, max_tokens=TOKENS)
    answer = suite.run(model, "agreement", np.random.default_rng(0))
    return {row.item_id: row.value for row in answer.items if row.metric == metric}


def by_inspect(folder: Path, items: Sequence[Item], by_letter: bool) -> Values:
    """Its `hf` provider, greedy; a choice is the letter of the highest log-probability among its first token's."""
    from inspect_ai import Task, eval  # noqa: A004 - its name
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import get_model
    from inspect_ai.scorer import Score, Target, accuracy, match, scorer, stderr, value_to_float
    from inspect_ai.solver import TaskState, generate

    @scorer(metrics=[accuracy(), stderr()])
    def likeliest():  # type: ignore[no-untyped-def]
        async def score(state: TaskState, target: Target) -> Score:
            first = state.output.choices[0].logprobs.content[0].top_logprobs
            found = max((each for each in first if each.token in LETTERS), key=lambda each: float(each.logprob))
            return Score(value=found.token == target.text, answer=found.token)

        return score

    samples = [Sample(input=item.prompt[0].content, target=item.gold, id=item.item_id) for item in items]
    model = get_model("hf/tuned", model_path=str(folder), device="cpu", do_sample=False, config={}, memoize=False)
    letters = {"logprobs": True, "top_logprobs": 1000, "max_tokens": 1}
    log = eval(
        Task(
            dataset=MemoryDataset(samples),
            solver=generate(),
            scorer=likeliest() if by_letter else match(location="exact", ignore_case=False),
        ),
        model=model,
        display="none",
        log_dir=str(folder / "inspect"),
        max_connections=32,
        **(letters if by_letter else {"max_tokens": TOKENS}),
    )[0]
    assert log.samples is not None, log.error
    worth = value_to_float()
    return {str(s.id): worth(next(iter((s.scores or {}).values())).value) for s in log.samples}


def cases(n: int) -> dict[str, list[Example]]:
    rows = asked("test", n, 1)
    choices = chosen(rows, 1)
    return {"replies": rows, "choices by text": choices, "choices by letter": [lettered(row) for row in choices]}


def compared(folder: Path, n: int) -> Iterator[tuple[str, str, Values, Values]]:
    """(case and metric, evaluator, its values, ours)."""
    model, rows = tuned(folder), cases(n)
    for case, metric in CASES:
        task = "exact_match" if case == "replies" else "choice"
        mine = ours(model, rows[case], task, metric)
        yield f"{case}, {metric}", "lm-eval", by_lm_eval(model, rows[case], task, metric), mine
        if find_spec("inspect_ai") is not None and case != "choices by text":
            items = TASKS["exact_match"](examples=tuple(rows[case])).items()
            yield f"{case}, {metric}", "inspect-ai", by_inspect(folder / "tuned", items, task == "choice"), mine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="where the model is kept; a temporary folder by default")
    given = parser.parse_args()
    if find_spec("inspect_ai") is None:
        print("inspect-ai is not installed, so it is left out")
    with TemporaryDirectory() as temporary:
        differ = 0
        for case, evaluator, theirs, mine in compared(given.folder or Path(temporary), given.items):
            means = [float(np.mean(list(values.values()))) for values in (mine, theirs)]
            apart = [item for item in mine if abs(mine[item] - theirs[item]) > ROUNDING]
            print(
                f"{case:<34}{evaluator:<12}{len(mine):>4} items  ours {means[0]:.4f}  theirs {means[1]:.4f}", end="  "
            )
            print(f"{len(apart)} differ: {', '.join(apart[:SHOWN])}" if apart else "every item equal", flush=True)
            differ += len(apart)
    return int(differ > 0)


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    sys.exit(main())
