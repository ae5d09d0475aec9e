"""GRAPE on replies that differ in wording alone: does it take the wording that its model was tuned on?"""

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.synthesis_here import Home, different, markdown, within, worded
from eval.calibration import wilson
from warehouse.records import Example

STYLES: Mapping[str, str] = {"front": "The answer is {}.", "back": "{} is the answer."}
TUNING, INSTRUCTIONS, SEED = 160, 150, 77  # other problems than those of the other parts, up to chance
EPOCHS = 3.0


def styled(rows: Sequence[Example], style: str) -> list[Example]:
    """`rows` with their right answers in one wording, their source its name."""
    rng = np.random.default_rng(0)
    return [Example(row.messages, style, row.meta) for row in (worded(row, rng, [STYLES[style]]) for row in rows)]


def preferred(home: Home) -> str:
    """A line per model whose likelihoods rank: the share of instructions whose chosen reply has each wording."""
    rows = different(SEED, TUNING + INSTRUCTIONS)
    bases = {"winnow-tiny, not tuned": "winnow-tiny"}
    for style in STYLES:
        source = home.file(f"tuned-on-{style}", styled(rows[:TUNING], style))
        bases[f"tuned on `{style}`"] = home.tuned(f"style-{style}", [source], TUNING, 0, params={"epochs": EPOCHS}).path
    files = [home.file(f"said-{style}", styled(rows[TUNING:], style)) for style in STYLES]
    pool = [{"synthesize": "grape_collect", "seeds": files, "params": {"verifier": "numeric"}}]
    methods = [{"name": "grape", "model": path} for path in bases.values()]
    outcome = home.raced(home.recipe("grape", pool, methods=methods, budgets=[INSTRUCTIONS]))
    lines = [
        [name, *_shares(home, selection["key"])] for name, selection in zip(bases, outcome.selections, strict=True)
    ]
    return markdown(["likelihoods of", "instructions", *(f"takes `{style}`" for style in STYLES)], lines)


def _shares(home: Home, selection: str) -> list[object]:
    chosen = home.rows(f"SELECT messages[len(messages)].content AS reply FROM selected WHERE selection = '{selection}'")
    front = sum(row["reply"].startswith("The") for row in chosen)
    n = len(chosen)
    return [n, within(wilson(front, n)), within(wilson(n - front, n))]
