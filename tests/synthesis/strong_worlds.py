"""Running a synthesizer over models that play back, in order or out of it."""

import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from attempt_worlds import Rows

from models.canned import CannedModel
from models.converse import Collected, converse
from models.dialogue import Rejected
from models.protocol import Completion, Prompt
from synthesis.protocol import Synthesizer
from warehouse.records import Example

LONGEST_S = 0.002


class Shuffled(CannedModel):
    """Answers each prompt when it pleases; `order` seeds how long each reply takes."""

    def __init__(self, model: CannedModel, order: int) -> None:
        super().__init__({})
        self._model, self._random, self._pool = model, random.Random(order), ThreadPoolExecutor(8)

    def submit(self, prompt: Prompt) -> "Future[Completion]":
        return self._pool.submit(self._after, self._random.random() * LONGEST_S, prompt)

    def _after(self, wait: float, prompt: Prompt) -> Completion:
        time.sleep(wait)
        return self._model.complete([prompt])[0]


def made(
    job: Synthesizer, seeds: Sequence[Example], models: Mapping[str, CannedModel], seed: int = 0, wave: int = 1024
) -> Rows:
    """The rows of a whole job, in order.

    Every reason is one of the job's, every model one that it says it needs, and every row names seeds and templates.
    """
    assert set(models) == set(job.needs.models)
    taken = Collected()
    converse([job(seeds, np.random.default_rng(seed))], models, emit=taken, wave=wave)
    rows = taken.rows()
    assert {row.reason for row in rows if isinstance(row, Rejected)} <= job.reasons
    ids = {one.sample_id for one in seeds}
    for row in rows:
        assert row.example is not None
        assert set(row.example.meta["parents"]) <= ids
        assert row.example.meta["template"]
    return rows
