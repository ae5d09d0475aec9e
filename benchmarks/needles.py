"""Fine needles in real data: rows of one kind among rows of kinds like it, and filters against labels people gave.

    python -m benchmarks.needles --real-data FOLDER [--json | --markdown] [--parts choose labels]

The first part chooses: 50 rows of a kind are the targets, held out with all that asks the same; right are the other
rows of that kind. Kinds are data sets of T0, branches of the InstructLab taxonomy, topics of a trivia collection and
the question sets of FLAN's chains of thought, each among the rest of its collection, at most 200 rows of every kind.
The budget is 200, or all right rows where there are fewer. Labels are not among what a method may read: a row's source
is its collection. Which kinds are targets, which rows and which draws follow from the seed.

The second part does not choose: it asks how well a similarity to an earlier row tells what the makers of a collection
called near-duplicates, and how well a likelihood tells right solutions and well-formed questions.

Intervals are 95 % bootstraps over targets (first part), over rows or over problems (second part).
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, combinations
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.stats import rankdata

from benchmarks.signals_here import REPRESENTATIONS, Corpus, Signals, codes, every_method
from benchmarks.truth import within
from eval.statistics import bootstrap, paired_bootstrap
from models.fingerprint import TINY
from selection.problem import Method, Signal, signals_of
from selection.semantic import near_duplicates as near_vectors
from selection.trigrams import DIMS
from selection.trigrams import spec as trigrams_spec
from warehouse.errors import InputError
from warehouse.formats import Interpreter
from warehouse.minhash import bands
from warehouse.near_duplicates import fingerprint, near_duplicates
from warehouse.records import Estimate, Example, Floats, Message, Rows

SEED = 0
TARGETS, BUDGET, FEWEST, MOST = 50, 200, 50, 200  # rows: of a target set, to choose, right ones at least, of a kind
DRAWS, BLOCK = 1000, 1024
BASELINE = "lexical"
PARTS = ("choose", "labels")


@dataclass(frozen=True, slots=True)
class Collection:
    """Rows of one file, by kind; `needles` of the kinds, drawn by the seed, are asked for, none of `mixed`."""

    file: str
    kind: Callable[[Mapping[str, str]], str]
    needles: int
    mixed: tuple[str, ...] = ()


def branch(meta: Mapping[str, str]) -> str:
    """The first four parts of a taxonomy path; "technical manual" and "technical_manual" are one."""
    return "/".join(meta["taxonomy"].replace(" ", "_").split("/")[:4])


COLLECTIONS: Mapping[str, Collection] = {
    "T0 data sets": Collection("t0_p3_sample", lambda meta: meta["dataset"], 14),
    "InstructLab branches": Collection("instructlab_taxonomy", branch, 8),
    "trivia topics": Collection(
        "open_trivia_qa",
        lambda meta: meta["category"],
        10,
        ("newest", "rated", "general", "for-kids", "people", "celebrities", "entertainment"),  # not topics, or overlap
    ),
    "kinds of question (FLAN)": Collection("flan_cot", lambda meta: meta["task"], 6),
}


@dataclass(frozen=True, slots=True)
class Labelled:
    """Rows of one collection, and the kind of each, (n,) texts."""

    rows: Sequence[Example]
    kind: NDArray[np.str_]


def examples(path: Path) -> list[Example]:
    """The rows of a Parquet file that have a question and a reply."""
    read = Interpreter(path.stem)
    found = [read(row) for row in pq.read_table(path).to_pylist()]
    return [row for row in found if isinstance(row, Example) and all(m.content.strip() for m in row.messages)]


def labelled(folder: Path, collection: Collection, most: int, seed: int) -> Labelled:
    """At most `most` rows of every kind, distinct, in the order of the file."""
    distinct = {row.sample_id: row for row in examples(folder / "pools" / f"{collection.file}.parquet")}
    rows = list(distinct.values())
    kind = np.array([collection.kind(row.meta) for row in rows])
    kept = capped(kind, most, np.random.default_rng(seed))
    return Labelled([rows[row] for row in kept], kind[kept])


def capped(kind: NDArray[np.str_], most: int, rng: np.random.Generator) -> Rows:
    """Ascending rows, at most `most` drawn of each kind."""
    order = rng.permutation(len(kind))
    kept = [order[kind[order] == name][:most] for name in np.unique(kind)]
    return np.sort(np.concatenate(kept))


@dataclass(frozen=True, slots=True)
class Needle:
    """One question: `targets` (50,) of a kind; `candidates` (n,) of its collection, `right` (n,) where of that kind."""

    collection: str
    kind: str
    targets: Rows
    candidates: Rows
    right: NDArray[np.bool_]

    @property
    def budget(self) -> int:
        return min(BUDGET, int(self.right.sum()))


def needles(name: str, kind: NDArray[np.str_], prompts: Rows, seed: int) -> Iterator[Needle]:
    """The questions of collection `name`; candidates never ask what a target asks."""
    collection, rng = COLLECTIONS[name], np.random.default_rng([seed, crc32(name.encode())])
    kinds, counts = np.unique(kind, return_counts=True)
    able = [
        each for each, n in zip(kinds, counts, strict=True) if n >= TARGETS + FEWEST and each not in collection.mixed
    ]
    for each in rng.permutation(able)[: collection.needles].tolist():
        targets = rng.choice(np.flatnonzero(kind == each), TARGETS, replace=False)
        candidates = np.flatnonzero(~np.isin(prompts, prompts[targets]))
        yield Needle(name, each, targets, candidates, kind[candidates] == each)


@dataclass(frozen=True, slots=True)
class Arm:
    """A method in one space: `name` is the method's, with the model's where it reads one."""

    name: str
    method: Method
    signals: Signals


def arms() -> tuple[list[Arm], dict[str, str]]:
    """Every method that compares with targets, once per representation where it reads one; a draw; why not others."""
    found, not_run = list[Arm](), dict[str, str]()
    for model in REPRESENTATIONS:
        signals = Signals(vectors=model)
        asked = every_method(signals)
        not_run |= asked.not_run
        for name, method in asked.methods.items():
            if not method.compares and name != "random":
                not_run[name] = "it reads no targets, so it can find a needle by chance alone: see benchmarks.truth"
            elif reads_vectors(method):
                found.append(Arm(f"{name}, {model}", method, signals))
            elif model == TINY:
                found.append(Arm(name, method, signals))
    return found, not_run


def reads_vectors(method: Method) -> bool:
    return bool({"representation", "instructions"} & {spec.name for spec in signals_of(method).candidates.values()})


@dataclass(frozen=True, slots=True)
class Chosen:
    """`precision` (q,) of the q needles, and the rows chosen for each."""

    precision: Floats
    rows: Sequence[Rows]


def chosen(arm: Arm, corpora: Mapping[str, Corpus], asked: Sequence[Needle], seed: int) -> Chosen:
    """What `arm` chooses in the corpus of each question's collection.

    Raises `InputError` where the method refuses one of the questions.
    """
    rows = [corpora[e.collection].choose(arm.method, e.candidates, e.targets, e.budget, seed) for e in asked]
    right = [np.isin(taken, each.candidates[each.right]).mean() for taken, each in zip(rows, asked, strict=True)]
    return Chosen(np.array(right), rows)


@dataclass(frozen=True, slots=True)
class Precision:
    """How an arm did: over all needles, over those of each collection, and against the baseline and a draw."""

    arm: str
    all: Estimate
    by_collection: Mapping[str, Estimate]
    over_baseline: Estimate
    over_random: Estimate


def precision(arm: str, found: Mapping[str, Chosen], collection: NDArray[np.str_], seed: int) -> Precision:
    values = found[arm].precision
    rng = np.random.default_rng(seed)
    return Precision(
        arm,
        bootstrap(values, rng),
        {name: bootstrap(values[collection == name], rng) for name in np.unique(collection).tolist()},
        over(values, found[BASELINE].precision, rng),
        over(values, found["random"].precision, rng),
    )


def over(values: Floats, others: Floats, rng: np.random.Generator) -> Estimate:
    """The mean of the paired differences."""
    return paired_bootstrap(values[None, :], others[None, :], rng).difference


def overlap(first: Chosen, second: Chosen) -> float:
    """Common rows over the budget, the mean over needles."""
    pairs = zip(first.rows, second.rows, strict=True)
    return float(np.mean([len(np.intersect1d(a, b)) / len(a) for a, b in pairs]))


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a number tells a label: `measure` says in what unit; n is the number of rows, or of problems."""

    question: str
    by: str
    measure: str
    value: Estimate


def auc(score: Floats, label: NDArray[np.bool_]) -> float:
    """The chance that a row with the label scores above one without; ties count half."""
    n, m = int(label.sum()), int((~label).sum())
    return float((rankdata(score)[label].sum() - n * (n + 1) / 2) / (n * m))


def spearman(first: Floats, second: Floats) -> float:
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


def resampled(
    statistic: Callable[[Rows], float], n: int, rng: np.random.Generator, clusters: Rows | None = None
) -> Estimate:
    """`statistic` of all n rows; its interval by drawing rows, or whole clusters (n,) of them, with repetition."""
    cluster = np.arange(n) if clusters is None else clusters
    members = np.split(np.argsort(cluster, kind="stable"), np.cumsum(np.bincount(cluster))[:-1])
    draws = rng.integers(0, len(members), (DRAWS, len(members)))
    values = [statistic(np.concatenate([members[place] for place in draw])) for draw in draws]
    low, high = (float(q) for q in np.percentile(values, (2.5, 97.5)))
    value = statistic(np.arange(n))
    return Estimate(value, min(low, value), max(high, value), len(members))


def nearest_earlier(signal: Signal) -> Floats:
    """(n,) the largest cosine of each row of unit length with an earlier row; 0 for the first."""
    nearest = np.zeros(signal.shape[0])
    for start in range(0, signal.shape[0], BLOCK):
        block = signal[start : start + BLOCK]
        products = block @ signal[: start + block.shape[0]].T
        cosines = products.toarray() if isinstance(products, csr_matrix) else np.asarray(products)
        places = np.arange(block.shape[0])[:, None] + start
        cosines[np.arange(cosines.shape[1])[None, :] >= places] = 0
        nearest[start : start + block.shape[0]] = cosines.max(axis=1)
    return nearest


def minhash_drops(rows: Sequence[Example], threshold: float) -> NDArray[np.bool_]:
    """(n,) the rows that the near-duplicate filter of `warehouse/` drops."""
    contents = pa.array([message.content for row in rows for message in row.messages])
    offsets = np.concatenate([[0], np.cumsum([len(row.messages) for row in rows])])
    with tempfile.TemporaryDirectory() as folder:
        fingerprint(contents, offsets, bands(threshold)).save(Path(folder))
        return np.isin(np.arange(len(rows)), near_duplicates([Path(folder)], threshold=threshold).rows)


def duplicate_agreement(
    question: str, rows: Sequence[Example], label: NDArray[np.bool_], seed: int
) -> Iterator[Agreement]:
    """How similarities tell the rows that the collection's makers called near-duplicates of others."""
    for model in REPRESENTATIONS:
        signals = Signals(vectors=model)
        vectors = Corpus(rows, signals).signal(signals.fill("representation", {}))
        yield ranked(question, f"cosine, {model}", nearest_earlier(vectors), label, seed)
        dropped = np.isin(np.arange(len(rows)), near_vectors(vectors, np.arange(len(rows)), 0.95).rows)
        yield from decided(question, f"semantic_duplicate at 0.95, {model}", dropped, label, seed)
    trigrams = Corpus(rows, Signals()).signal(trigrams_spec(DIMS))
    yield ranked(question, "cosine of trigrams", nearest_earlier(csr_matrix(trigrams)), label, seed)
    for threshold in (0.8, 0.6):
        yield from decided(question, f"near_duplicate at {threshold}", minhash_drops(rows, threshold), label, seed)


def ranked(question: str, by: str, score: Floats, label: NDArray[np.bool_], seed: int) -> Agreement:
    estimate = resampled(at_rows(auc, score, label), len(label), np.random.default_rng(seed))
    return Agreement(question, by, "area under the curve", estimate)


def decided(
    question: str, by: str, dropped: NDArray[np.bool_], label: NDArray[np.bool_], seed: int
) -> Iterator[Agreement]:
    """Precision over the rows dropped, recall over the rows with the label."""
    rng = np.random.default_rng(seed)
    if dropped.any():
        yield Agreement(question, by, "precision", bootstrap(label[dropped].astype(np.float64), rng))
    yield Agreement(question, by, "recall", bootstrap(dropped[label].astype(np.float64), rng))


def filters(folder: Path, seed: int) -> Iterator[Agreement]:
    """Near-duplicates that the makers of two collections marked."""
    rows = examples(folder / "pools" / "gpteacher_toolformer.parquet")
    for threshold in ("0.9", "0.7"):
        label = np.array([threshold not in row.meta["kept_at"] for row in rows])
        yield from duplicate_agreement(f"gpteacher: dropped by its makers at {threshold}", rows, label, seed)
    rows = [r for r in examples(folder / "pools" / "alpaca_libre.parquet") if r.meta["status"] in ("ok", "too similar")]
    label = np.array([row.meta["status"] == "too similar" for row in rows])
    yield from duplicate_agreement("alpaca_libre: too similar, said its makers", rows, label, seed)


def at_rows(statistic: Callable[[Any, Any], float], first: Any, second: Any) -> Callable[[Rows], float]:
    """`statistic` of two arrays (n,) at given rows."""
    return lambda at: statistic(first[at], second[at])


def qualities(folder: Path, seed: int) -> Iterator[Agreement]:
    """Likelihoods, and lengths as the control, against right solutions and well-formed questions."""
    table = pq.read_table(folder / "labelled" / "gsm8k_model_solutions.parquet").to_pylist()
    rows = [Example((Message("user", r["prompt"]), Message("assistant", r["response"])), "gsm8k") for r in table]
    right, problems = np.array([r["score"] == 1 for r in table]), codes([r["prompt"] for r in table])
    for by, score in numbers(rows).items():
        value = resampled(at_rows(auc, -score, right), len(rows), np.random.default_rng(seed), problems)
        yield Agreement("gsm8k solutions: right", f"low {by}", "area under the curve", value)
    table = pq.read_table(folder / "labelled" / "query_wellformedness.parquet").to_pylist()
    rows = [Example((Message("assistant", r["prompt"]),), "queries") for r in table]
    human = np.array([r["score"] for r in table])
    for by, score in numbers(rows).items():
        value = resampled(at_rows(spearman, -score, human), len(rows), np.random.default_rng(seed))
        yield Agreement("queries: well-formed, said people", f"low {by}", "Spearman", value)


def numbers(rows: Sequence[Example]) -> dict[str, Floats]:
    """Mean NLL of the reply under winnow-tiny and reply tokens, (n,) each."""
    signals = Signals()
    values = np.asarray(Corpus(rows, signals).signal(signals.fill("response", {})), np.float64)
    return {"NLL, winnow-tiny": values[:, 0], "number of tokens": values[:, 1]}


def precision_table(found: Sequence[Precision]) -> str:
    """Markdown, the best first."""
    collections = list(found[0].by_collection)
    head = ["method", "all", f"over {BASELINE}", "over a draw", *collections]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for each in sorted(found, key=lambda one: -one.all.value):
        parts = [within(each.all), within(each.over_baseline), within(each.over_random)]
        parts += [within(each.by_collection[name]) for name in collections]
        lines.append(f"| `{each.arm}` | {' | '.join(parts)} |")
    return "\n".join(lines)


def overlap_table(found: Mapping[str, Chosen]) -> str:
    """Markdown: the share of rows that two arms have in common."""
    names = list(found)
    lines = [f"| | {' | '.join(str(number) for number in range(1, len(names) + 1))} |", "|---" * (len(names) + 1) + "|"]
    for number, name in enumerate(names, start=1):
        shares = [f"{overlap(found[name], found[other]):.2f}" for other in names]
        lines.append(f"| {number} `{name}` | {' | '.join(shares)} |")
    return "\n".join(lines)


def agreement_line(found: Agreement) -> str:
    return f"| {found.question} | {found.by} | {found.measure} | {within(found.value)} | {found.value.n:,} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real-data", type=Path, required=True, help="the folder that holds pools/ and labelled/")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="one JSON object a line")
    shown.add_argument("--markdown", action="store_true", help="tables, as without an option")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--most", type=int, default=MOST, help="rows of every kind")
    parser.add_argument("--collections", nargs="+", choices=list(COLLECTIONS), default=list(COLLECTIONS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="methods that choose, or labels")
    given = parser.parse_args()
    if "choose" in given.parts:
        choose(given)
    if "labels" in given.parts:
        if not given.json:
            print("\n| question | by | measure | value | n |\n|---|---|---|---|---|")
        for each in chain(filters(given.real_data, given.seed), qualities(given.real_data, given.seed)):
            print(json.dumps(asdict(each)) if given.json else agreement_line(each), flush=True)


def choose(given: argparse.Namespace) -> None:
    """Ask every arm every needle, and tell how it did."""
    data = {name: labelled(given.real_data, COLLECTIONS[name], given.most, given.seed) for name in given.collections}
    every, not_run = arms()
    corpora = {
        model: {name: Corpus(each.rows, Signals(vectors=model)) for name, each in data.items()}
        for model in REPRESENTATIONS
    }
    prompts = {name: corpus.prompts for name, corpus in corpora[TINY].items()}
    asked = [e for name, each in data.items() for e in needles(name, each.kind, prompts[name], given.seed)]
    found = dict[str, Chosen]()
    for arm in every:
        try:
            found[arm.name] = chosen(arm, corpora[arm.signals.vectors], asked, given.seed)
        except InputError as refusal:
            not_run[arm.name] = str(refusal)
    collection = np.array([each.collection for each in asked])
    precisions = [precision(name, found, collection, given.seed) for name in found]
    (tell_json if given.json else tell_tables)(asked, precisions, found, not_run, given.seed)


def tell_json(
    asked: Sequence[Needle],
    precisions: Sequence[Precision],
    found: Mapping[str, Chosen],
    not_run: Mapping[str, str],
    seed: int,
) -> None:
    lines: list[dict[str, Any]] = [
        {"needle": n.kind, "collection": n.collection, "right": int(n.right.sum()), "pool": len(n.right), "seed": seed}
        for n in asked
    ]
    lines += [asdict(each) for each in precisions]
    lines += [{"arms": [a, b], "common": overlap(found[a], found[b])} for a, b in combinations(found, 2)]
    lines += [{"arm": arm, "not_run": why} for arm, why in not_run.items()]
    for line in lines:
        print(json.dumps(line), flush=True)


def tell_tables(
    asked: Sequence[Needle],
    precisions: Sequence[Precision],
    found: Mapping[str, Chosen],
    not_run: Mapping[str, str],
    seed: int,
) -> None:
    print(f"{len(asked)} needles, seed {seed}; {TARGETS} targets each\n")
    for name in dict.fromkeys(each.collection for each in asked):
        of = [each for each in asked if each.collection == name]
        shares, budgets = [each.right.mean() for each in of], [each.budget for each in of]
        print(
            f"- {name}: {len(of[0].candidates):,} candidates, {min(shares):.1%} to {max(shares):.1%} right, "
            f"budget {min(budgets)} to {max(budgets)}: {', '.join(each.kind for each in of)}"
        )
    print(f"\n{precision_table(precisions)}\n\nRows in common\n\n{overlap_table(found)}\n")
    for arm, why in not_run.items():
        print(f"- `{arm}` not run: {why}", flush=True)


if __name__ == "__main__":
    main()
