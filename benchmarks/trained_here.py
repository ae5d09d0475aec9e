"""What LESS, DEITA and PASER need before they can choose in the world of `synthesis/world.py`, trained in this process.

- `gradient`: a warm-up as LESS publishes it (a random 5 % of the pool, 4 epochs, 32 rows a step, 2e-5, 4 checkpoints,
  steps of Adam, 8,192 dimensions), but of rank 8: its rank of 128 is near the width of winnow-tiny, 192.
- `scores`: two scorers tuned from winnow-tiny on rows in the format of `winnow scorers`. No model here can judge, so
  the world stands in for generator and judge: it writes the versions of a text and knows which is better. It makes no
  mistakes and looks for what the questions ask: a real judge would give less.
- `degradation`: winnow-tiny tuned on clean rows of all skills, and the same with weights of small magnitude at zero.

Everything is kept in a folder and made once. Trainings of one seed share nothing with the pools that are chosen from
but the world, and the warm-up, which is of the pool.
"""

import argparse
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.signals_here import CACHE
from models.divergence import divergence
from models.fingerprint import TINY, fingerprint
from models.gradients import gradients
from models.local import LocalModel
from models.lora import warm_factors
from models.protocol import Prompt
from models.scorer import Grade, grades, prompt, scores
from selection.problem import Signal
from synthesis.chatter import CLOSINGS, MIDDLES, OPENINGS
from synthesis.skill import pick
from synthesis.skills import SKILLS
from synthesis.world import FAMILIES, World
from training.prune import prune
from training.sft import ATTENTION, Sft, tiny
from training.warmup import Warmup, kept, less
from warehouse.records import Dataset, Example, Message, Messages, Spec, canonical, digest

DIMENSIONS, SHARE, CHECKPOINTS = 8192, 0.05, 4
WHOLE_ROWS, PRUNED, PROBLEMS = 1600, 0.5, 20  # rows to tune on; share of weights at zero; held-out problems of a skill
QUESTIONS, REPLIES = 100, 400  # texts that versions are made of, six of a question and four of a reply
APART = 1_000_000  # what a pool's seed is raised by for a training
ADAPTER = {"name": "lora", "rank": 8, "alpha": 32, "dropout": 0.1, "targets": ATTENTION}  # alpha 4 times, as in LESS
TRAINED = frozenset({"gradient", "target_gradient", "scores", "degradation"})


@dataclass(frozen=True, slots=True)
class Trained:
    """Signals of one question, of its `pool` and `seed`; `folder` keeps what was trained and may be deleted."""

    folder: Path
    pool: Sequence[Example] = ()
    seed: int = 0

    @property
    def names(self) -> frozenset[str]:
        return TRAINED

    def spec(self, wanted: str) -> Spec:
        return Spec(wanted, {"model": TINY, "trained": "here"})

    def measure(self, spec: Spec, rows: Sequence[Messages]) -> Signal:
        """The values (n, ...) of `rows`. Trains what is needed and not there."""
        if spec.name == "scores":
            complexity, quality = (read(scorer(self.folder, grade), "raw") for grade in VERSIONS)
            return scores(complexity, quality, rows)
        if spec.name == "degradation":
            pair = damage(self.folder, self.seed)
            return divergence(read(pair.damaged, "tulu"), read(pair.whole, "tulu"), rows)
        return np.hstack(list(self._gradients(rows, adam=spec.name == "gradient")))

    def _gradients(self, rows: Sequence[Messages], adam: bool) -> Iterator[NDArray[np.float16]]:
        """Of each checkpoint, (n, p) times the root of its share of the learning rates."""
        for adapter, share in kept(self._warm_up()):
            model = LocalModel.load(TINY, dtype="float32", device="cpu", template="tulu", adapter=adapter)
            model.batch_tokens = 1 << 14  # a batch's part of the cost is paid once, and the factors are small
            found = gradients(model, warm_factors(model, adapter), rows, adam=adam, dims=DIMENSIONS)
            yield np.asarray(found * np.float16(share**0.5), np.float16)

    def _warm_up(self) -> Path:
        drawn = np.random.default_rng(self.seed).permutation(len(self.pool))[: max(1, round(SHARE * len(self.pool)))]
        rows = [self.pool[row].messages for row in drawn]
        return tuned(Warmup(less(tuning=ADAPTER, precision="float32"), CHECKPOINTS), rows, self.folder, self.seed)


def row_texts(rows: Sequence[Messages]) -> list[list[str]]:
    return [[message.content for message in row] for row in rows]


def once(folder: Path, make: Callable[[Path], object]) -> Path:
    """`folder` as `make` leaves it in an empty one, made whole or not at all."""
    if not folder.exists():
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        make(part)
        part.rename(folder)
    return folder


def written(rows: Sequence[Messages], path: Path) -> Dataset:
    """`rows` as a file that a trainer reads."""
    pq.write_table(pa.Table.from_pylist([{"messages": [asdict(each) for each in row]} for row in rows]), path)
    return Dataset(path, digest(canonical(row_texts(rows))))


def tuned(trainer: Sft | Warmup, rows: Sequence[Messages], folder: Path, seed: int) -> Path:
    """winnow-tiny tuned on `rows`, in a part of `folder` that is named by all that decides it."""
    asked = digest(canonical([row_texts(rows), trainer.spec.name, dict(trainer.spec.params), fingerprint(TINY), seed]))

    def make(out: Path) -> None:
        with TemporaryDirectory() as beside:
            trainer(TINY, written(rows, Path(beside) / "rows.parquet"), out, seed)

    return once(folder / f"tuned-{asked}", make)


@cache
def read(folder: Path, template: str) -> LocalModel:
    return LocalModel.load(str(folder), dtype="float32", device="cpu", template=template)


# scorers


@dataclass(frozen=True, slots=True)
class Version:
    """A text that a scorer is taught: `grade` 1 to 6 is the judge's; `of` numbers what it is a version of."""

    of: int
    asked: str
    reply: str
    grade: int


def harder(seed: int) -> Iterator[Version]:
    """Questions that ask one thing more at every step: the grade is how many they ask."""
    rows = clean_rows(6 * QUESTIONS, seed)
    for of in range(QUESTIONS):
        parts = [row.messages[0].content for row in rows[6 * of : 6 * of + 6]]
        yield from (Version(of, " Then: ".join(parts[:n]), "", n) for n in range(1, 7))


def better(seed: int) -> Iterator[Version]:
    """Replies to one question: right, right among chatter, wrong but of its kind, and the answer to another question.

    Traces have no right version of the same question and are left out.
    """
    rng = np.random.default_rng(seed)
    drafts = [FAMILIES[pick(rng, tuple(SKILLS))].dynamic(rng, World().dynamic_noise) for _ in range(REPLIES)]
    for of, draft in enumerate(drafts):
        middle = pick(rng, MIDDLES).replace("{answer}", draft.answer)
        yield Version(of, draft.question, draft.answer, 6)
        yield Version(of, draft.question, f"{pick(rng, OPENINGS)} {middle} {pick(rng, CLOSINGS)}", 4)
        yield Version(of, draft.question, draft.reply, 2)
        yield Version(of, draft.question, drafts[of - 1].answer, 1)


VERSIONS: Mapping[Grade, Callable[[int], Iterator[Version]]] = {"complexity": harder, "quality": better}


def clean_rows(count: int, seed: int, skills: Sequence[str] | None = None) -> list[Example]:
    """Rows of the pool's split, of all skills or of `skills`."""
    return list(World(count, skills=skills, sources={"clean": 1.0}).examples(seed, 0, count))


def scorer(folder: Path, grade: Grade) -> Path:
    """One scorer for all seeds; nine in ten of its texts are trained on."""
    versions = [each for each in VERSIONS[grade](APART) if each.of % 10]
    rows = [
        (Message("user", prompt(grade, (each.asked, each.reply))), Message("assistant", str(each.grade)))
        for each in versions
    ]
    return tuned(tiny(template="raw", max_length=512), rows, folder, 0)


def agreement(folder: Path, grade: Grade) -> dict[str, float | int] | None:
    """How often the scorer orders two versions of a text that was kept out as the stand-in for a judge does."""
    from flows.scoring.scorers import ranked_alike

    left = [each for each in VERSIONS[grade](APART) if not each.of % 10]
    given = grades(read(scorer(folder, grade), "raw"), [prompt(grade, (each.asked, each.reply)) for each in left])
    judged = np.array([each.grade for each in left])
    return ranked_alike(given, judged, [str(each.of) for each in left], np.random.default_rng(0))


# damage


@dataclass(frozen=True, slots=True)
class Damage:
    """A model and its pruned copy; `right` of each skill are the shares of held-out problems that each solves."""

    whole: Path
    damaged: Path
    right: Mapping[str, tuple[float, float]]

    @property
    def lost(self) -> dict[str, float]:
        return {skill: before - after for skill, (before, after) in self.right.items()}


@cache
def damage(folder: Path, seed: int) -> Damage:
    """winnow-tiny tuned on clean rows of all skills with `seed`, and pruned."""
    rows = [row.messages for row in clean_rows(WHOLE_ROWS, APART + seed)]
    whole = tuned(tiny(), rows, folder, seed)
    damaged = once(whole.with_name(f"{whole.name}-pruned-{PRUNED}"), lambda out: prune(str(whole), PRUNED, out))
    told = damaged / "solved.json"
    if not told.exists():
        told.write_text(json.dumps([solved(whole, seed), solved(damaged, seed)]), encoding="utf-8")
    before, after = json.loads(told.read_text(encoding="utf-8"))
    return Damage(whole, damaged, {skill: (before[skill], after[skill]) for skill in before})


def solved(folder: Path, seed: int) -> dict[str, float]:
    """The share of each skill's held-out problems whose greedy reply ends as the right one does."""
    rows = [row for skill in FAMILIES for row in World(PROBLEMS, "validation", [skill]).examples(seed, 0, PROBLEMS)]
    longest = int(read(folder, "tulu").count_tokens([row.messages for row in rows]).max())
    asked = [Prompt(row.messages[:1], max_tokens=longest, temperature=0.0) for row in rows]
    replies = read(folder, "tulu").complete(asked)
    right = [reply.text.strip() == row.messages[1].content for reply, row in zip(replies, rows, strict=True)]
    return dict(zip(FAMILIES, np.reshape(right, (-1, PROBLEMS)).mean(axis=1).tolist(), strict=True))


def main() -> None:
    """How far the scorers can be trusted, and what pruning cost each skill."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="of the models that are pruned")
    given = parser.parse_args()
    for grade in VERSIONS:
        print(f"{grade}: pairs of kept-out texts ordered as they were graded: {agreement(CACHE, grade)}", flush=True)
    for seed in range(given.seeds):
        told = [f"{skill} {was:.2f} -> {now:.2f}" for skill, (was, now) in damage(CACHE, seed).right.items()]
        print(f"seed {seed}, solved before and after pruning: {', '.join(told)}", flush=True)


if __name__ == "__main__":
    main()
