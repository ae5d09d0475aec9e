"""Signals measured in this process, for scripts that ask methods without a run, a store or a server.

`Signals` knows what each field of a method means here and measures it; vectors and likelihoods are kept as .npy files,
named by spec and rows, so that a script asked again is quick. `Corpus` is some rows with their signals, of which any
may be candidates and any targets. What cannot be measured here is said by `NotHere`, with the reason.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from shutil import copyfile
from typing import Any, Literal, Protocol, TypeAlias, get_args, get_origin

import numpy as np
import torch
from numpy.typing import NDArray

from models.encoder import SentenceEncoder, prompt_text, row_text
from models.fingerprint import MINILM, TINY, fetch, fingerprint
from models.likelihood import response_alone, response_values
from models.local import LocalModel
from models.protocol import Want
from models.tokens import row_lengths
from selection.concepts import concepts
from selection.ngrams import ngrams
from selection.problem import Method, Problem, Signal, cores, signals_of
from selection.repetition import repetition
from selection.repetition import spec as repetition_spec
from selection.table import FILLED, METHODS, build, parameters
from selection.trigrams import trigrams
from warehouse.errors import InputError
from warehouse.records import Example, Messages, Rows, Spec, canonical, digest

UNTRAINED = "untrained"
"""A control: winnow-tiny's architecture and tokenizer, its weights as drawn before training."""

REPRESENTATIONS = (TINY, MINILM, UNTRAINED)
CACHE = Path(tempfile.gettempdir()) / "winnow-signals"
WANTS = frozenset({Want.REPRESENTATION, Want.PROMPT_REPRESENTATION, Want.RESPONSE_LOGPROBS})
ROWS_AT_ONCE = 1024  # sorted by length together, by one core
NOT_MADE = {
    "scores": "no scorers of DEITA here: they are trained on a strong model's ratings",
    "gradient": "no gradients here: they need a warm-up training",
    "target_gradient": "no gradients here: they need a warm-up training",
    "degradation": "no damaged model here: PASER compares the model with one that was pruned",
}

Array: TypeAlias = NDArray[Any]


class NotHere(Exception):
    """A signal that nothing here can measure, and why."""


class Trainings(Protocol):
    """Signals of `names` that are measured by what was trained for them."""

    @property
    def names(self) -> frozenset[str]: ...

    def spec(self, wanted: str) -> Spec: ...

    def measure(self, spec: Spec, rows: Sequence[Messages]) -> Signal: ...


@dataclass(frozen=True, slots=True)
class Signals:
    """What measures rows: `vectors` (one of `REPRESENTATIONS`) makes representations, `likely` reads replies.

    `folder` keeps what was measured; it may be deleted at any time. `trained` measures what needs a training first.
    """

    vectors: str = TINY
    likely: str = TINY
    folder: Path = CACHE
    trained: Trainings | None = None

    def fill(self, wanted: str, given: Mapping[str, Any]) -> Any:
        """The value of a field of `selection.table.FILLED`. Raises `NotHere` for a signal that cannot be measured."""
        if wanted in ("representation", "instructions"):
            return self._spec(wanted, self.vectors, "tulu")
        if wanted in ("response", "response_alone"):
            return self._spec(wanted, given.get("model") or self.likely, given.get("template", "tulu"))
        if wanted == "length":
            return Spec("length", {"unit": "tokens", "tokenizer": fingerprint(TINY)})
        if wanted == "tokenizer":
            return fingerprint(TINY)
        if wanted == "repetition":
            return repetition_spec()
        if self.trained is not None and wanted in self.trained.names:
            return self.trained.spec(wanted)
        raise NotHere(NOT_MADE.get(wanted, f"nothing here measures {wanted!r}"))

    def measure(self, spec: Spec, rows: Sequence[Example]) -> Signal:
        """The values of `spec` for `rows`: what text alone gives is made anew, what a model gives is kept."""
        if spec.name in TEXTS:
            return TEXTS[spec.name](rows, spec.params)
        if self.trained is not None and self.trains(spec):
            return self.trained.measure(spec, [row.messages for row in rows])
        if spec.name not in PASSES:
            raise NotHere(NOT_MADE.get(spec.name, f"nothing here measures {spec.name!r}"))
        ids, first, inverse = np.unique([row.sample_id for row in rows], return_index=True, return_inverse=True)
        asked = digest(canonical(ids.tolist()))
        if not self._file(spec, asked).exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            for name, values in self._passed(spec, [rows[place].messages for place in first]).items():
                keep(self._file(Spec(name, spec.params), asked), values)
        return np.asarray(np.load(self._file(spec, asked), allow_pickle=False)[inverse])

    def trains(self, spec: Spec) -> bool:
        """Whether `spec` is one of `trained`."""
        return self.trained is not None and spec.name in self.trained.names

    def _file(self, spec: Spec, asked: str) -> Path:
        return self.folder / f"{spec.key}-{asked}.npy"

    def _passed(self, spec: Spec, rows: Sequence[Messages]) -> dict[str, Array]:
        """What one pass over `rows` gives, by signal name; every core takes its share of the blocks."""
        name, template, make = self._name(spec.params["model"]), spec.params["template"], PASSES[spec.name]
        blocks = [rows[at : at + ROWS_AT_ONCE] for at in range(0, len(rows), ROWS_AT_ONCE)]
        lanes = min(cores(), len(blocks))
        models = [loaded(name, template, number) for number in range(lanes)]  # one by one: two loads at once break

        def lane(number: int) -> list[dict[str, Array]]:
            return [make(models[number], spec.name, block) for block in blocks[number::lanes]]

        with one_core_each(), ThreadPoolExecutor(lanes) as threads:
            done = list(threads.map(lane, range(lanes)))
        in_order = [done[place % lanes][place // lanes] for place in range(len(blocks))]
        return {signal: np.concatenate([block[signal] for block in in_order]) for signal in in_order[0]}

    def _name(self, model: str) -> str:
        """The name or folder under which `model` is loaded; makes the untrained one where it is asked for."""
        return str(untrained(self.folder / UNTRAINED)) if model == UNTRAINED else model

    def _spec(self, wanted: str, model: str, template: str) -> Spec:
        return Spec(wanted, {"model": model, "content": fingerprint(self._name(model), template), "template": template})


def untrained(folder: Path, seed: int = 0) -> Path:
    """`folder` with a model of winnow-tiny's architecture and tokenizer, its weights drawn from `seed`."""
    from transformers import AutoConfig, AutoModelForCausalLM

    if not (folder / "model.safetensors").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for path in fetch(TINY).iterdir():
            if path.suffix in (".json", ".jinja"):
                copyfile(path, folder / path.name)
        torch.manual_seed(seed)
        family: Any = AutoModelForCausalLM
        family.from_config(AutoConfig.from_pretrained(fetch(TINY))).save_pretrained(folder)
    return folder


def keep(path: Path, values: Array) -> None:
    """Write `values` whole or not at all."""
    part = path.with_suffix(f".{os.getpid()}")
    with part.open("wb") as file:
        np.save(file, values, allow_pickle=False)
    part.replace(path)


def text_of(row: Example) -> str:
    return "\n".join(message.content for message in row.messages)


def reply_of(row: Example) -> str:
    return "\n".join(message.content for message in row.messages if message.role == "assistant")


def lengths(rows: Sequence[Example], params: Mapping[str, Any]) -> Array:
    if params["unit"] == "characters":
        return np.array([sum(len(message.content) for message in row.messages) for row in rows], np.int64)
    return row_lengths(TINY, [row.messages for row in rows])


TEXTS: Mapping[str, Callable[[Sequence[Example], Mapping[str, Any]], Signal]] = {
    "length": lengths,
    "trigrams": lambda rows, given: trigrams([text_of(row) for row in rows], given["dims"]),
    "ngrams": lambda rows, given: ngrams([text_of(row) for row in rows], given["dims"], given["hashing"]),
    "concepts": lambda rows, given: concepts([text_of(row) for row in rows], given["dims"]),
    "repetition": lambda rows, given: repetition([reply_of(row) for row in rows]),
}
"""Signals that text alone gives: the spec's parameters say how."""


@contextmanager
def one_core_each() -> Iterator[None]:
    """Threads that run torch on one core each: on a shared machine, where a product waits for its slowest core, ten

    times faster for a small model than one product on all cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def loaded(name: str, template: str, lane: int) -> LocalModel | SentenceEncoder:
    """A model of its own for every lane: tokenizers may not be shared by threads."""
    if name == MINILM:
        return SentenceEncoder(name, device="cpu", dtype="auto")
    return LocalModel.load(name, dtype="float32", device="cpu", template=template)


def whole_row(model: LocalModel | SentenceEncoder, signal: str, rows: Sequence[Messages]) -> dict[str, Array]:
    """Vectors (n, d) float32 of unit length of rows and of their prompts, and likelihoods (n, 3) of their replies.

    A language model gives all in one pass; an encoder gives the one that is asked for, and no likelihoods.
    """
    if isinstance(model, LocalModel):
        measured = model.measure(rows, WANTS)
        vectors, prompts = np.asarray(measured.representation), np.asarray(measured.prompt_representation)
        return {"representation": vectors, "instructions": prompts, "response": response_values(measured)}
    if signal == "response":
        raise InputError(f"{model.name!r} is an encoder and has no likelihoods: name a language model")
    text = prompt_text if signal == "instructions" else row_text
    return {signal: model.embed([text(row) for row in rows])}


def reply_alone(model: LocalModel | SentenceEncoder, signal: str, rows: Sequence[Messages]) -> dict[str, Array]:
    """Likelihoods (n, 3) of replies without their prompts."""
    if isinstance(model, SentenceEncoder):
        raise InputError(f"{model.name!r} is an encoder and has no likelihoods: name a language model")
    return {signal: response_alone(model, rows)}


Pass: TypeAlias = Callable[[LocalModel | SentenceEncoder, str, Sequence[Messages]], dict[str, Array]]
PASSES: Mapping[str, Pass] = {
    "representation": whole_row,
    "instructions": whole_row,
    "response": whole_row,
    "response_alone": reply_alone,
}
"""Signals that a model gives in a pass over the rows."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Rows and their signals; candidates and targets are row numbers of it."""

    rows: Sequence[Example]
    signals: Signals
    _values: dict[tuple[str, bytes], Signal] = field(default_factory=dict)
    _facts: dict[str, Array] = field(default_factory=dict)

    def signal(self, spec: Spec) -> Signal:
        return self._of(spec, np.arange(len(self.rows)))

    def signal_of(self, spec: Spec, rows: Rows) -> Signal:
        """The values of some rows; what a training gives is measured of these alone, for it costs the most."""
        return self._of(spec, rows) if self.signals.trains(spec) else self.signal(spec)[rows]

    def _of(self, spec: Spec, rows: Rows) -> Signal:
        asked = spec.key, rows.tobytes()
        if asked not in self._values:
            self._values[asked] = self.signals.measure(spec, [self.rows[row] for row in rows])
        return self._values[asked]

    @property
    def keys(self) -> Array:
        """(n,) uint64, the first 64 bits of each `sample_id`, as a stored pool has them."""
        return self._fact("keys", lambda: np.array([int(row.sample_id[:16], 16) for row in self.rows], np.uint64))

    @property
    def prompts(self) -> Array:
        """(n,) int64, equal where the prompt is."""
        return self._fact("prompts", lambda: codes([row.prompt_id for row in self.rows]))

    @property
    def sources(self) -> Array:
        return self._fact("sources", lambda: np.array([row.source for row in self.rows]))

    def problem(self, method: Method, candidates: Rows, targets: Rows, budget: int) -> Problem:
        """Choose `budget` of the rows `candidates` for the rows `targets`, all of one task."""
        reads = signals_of(method)
        return Problem(
            budget=budget,
            keys=self.keys[candidates],
            candidates={name: self.signal_of(spec, candidates) for name, spec in reads.candidates.items()},
            targets={name: self.signal_of(spec, targets) for name, spec in reads.targets.items()},
            target_task=np.zeros(len(targets) if method.compares else 0, np.int64),
            task_names=("target",),
            groups={"source": self.sources[candidates], "instruction": self.prompts[candidates]},
        )

    def choose(self, method: Method, candidates: Rows, targets: Rows, budget: int, seed: int) -> Rows:
        """The rows of the corpus that `method` takes, best first."""
        problem = self.problem(method, candidates, targets, budget)
        return candidates[method(problem, np.random.default_rng(seed)).rows]

    def _fact(self, name: str, make: Callable[[], Array]) -> Array:
        if name not in self._facts:
            self._facts[name] = make()
        return self._facts[name]


def codes(labels: Sequence[str]) -> Array:
    """(n,) int64, equal where the labels are."""
    return np.unique(np.array(labels), return_inverse=True)[1].astype(np.int64)


@dataclass(frozen=True, slots=True)
class Asked:
    """Methods that can be asked here, by label, and why the others cannot."""

    methods: Mapping[str, Method]
    not_run: Mapping[str, str]


def every_method(signals: Signals, variants: bool = False) -> Asked:
    """Every method of the table with its defaults; with `variants` also every other choice of a literal parameter."""
    methods, not_run = dict[str, Method](), dict[str, str]()
    for name in METHODS:
        for params in [{}, *(_variants(name) if variants else ())]:
            try:
                methods[label(name, params)] = measurable(build(name, params, signals.fill), signals)
            except (NotHere, InputError) as refusal:
                not_run[label(name, params)] = str(refusal)
    return Asked(methods, not_run)


def measurable(method: Method, signals: Signals) -> Method:
    """`method`; raises `NotHere` where it reads a signal that `signals` cannot measure."""
    reads = signals_of(method)
    for spec in (*reads.candidates.values(), *reads.targets.values()):
        if spec.name not in TEXTS and spec.name not in PASSES and not signals.trains(spec):
            raise NotHere(NOT_MADE.get(spec.name, f"nothing here measures {spec.name!r}"))
    return method


def label(name: str, params: Mapping[str, Any]) -> str:
    return f"{name}({', '.join(f'{param}={value}' for param, value in params.items())})" if params else name


def _variants(name: str) -> list[dict[str, Any]]:
    of_signals = {each for signal in FILLED.values() for each in signal}
    literal = [
        each for each in parameters(name).values() if get_origin(each.kind) is Literal and each not in of_signals
    ]
    return [{each.name: choice} for each in literal for choice in get_args(each.kind) if choice != each.default]
