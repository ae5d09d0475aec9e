"""The signals of a run: which spec each field of a method means, and what computes the values of some rows."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.recipes import Representation
from models.fingerprint import TINY, fetch, fingerprint
from training.cost import forward_flops
from training.warmup import Warmup, kept
from warehouse.errors import InputError
from warehouse.records import Example, Messages, Spec, canonical
from warehouse.signals import Array

if TYPE_CHECKING:
    from models.local import LocalModel

    Load = Callable[[], LocalModel]

WANTS = {
    "representation": "representation",
    "instructions": "prompt_representation",
    "response": "response_logprobs",
}
"""Signals that one forward pass over a row gives, where model, length and precision agree: what is wanted of it."""

BACKWARD = 3  # a backward pass takes twice the operations of the forward pass before it
MODELS_KEPT = 2  # in a process: as many as a pass needs at most
PASS = ("model", "max_length", "dtype")

Values = Mapping[str, Array]
Compute = Callable[[Sequence[Example]], tuple[Values, int]]
"""Values of some rows by signal name, and the floating-point operations of a model that they took."""


@dataclass(slots=True)
class Meter:
    """Knows the signals that methods ask for, and the models that measure them; models load at the first need.

    representation  what the recipe names to turn a row into a vector
    base            the model that is tuned, where one is: likelihoods are its own unless a method names another
    allowed         names of other models than the representation's whose own code may run
    names           name and template by fingerprint, of all models that a spec was made of
    warmed          key and folder of the warm-up runs that gradients are compared at, by what they were asked with
    original        what `base` was pruned from, where the run prunes it: what a damaged model is compared with
    """

    representation: Representation
    base: str | None = None
    allowed: frozenset[str] = frozenset()
    names: dict[str, tuple[str, str]] = field(default_factory=dict)
    warmed: dict[str, tuple[str, Path]] = field(default_factory=dict)
    original: str | None = None

    @property
    def name(self) -> str:
        """The model or encoder, as the user named it."""
        return self.representation.encoder or self.representation.model or TINY

    def spec(self) -> Spec:
        """The spec of the representation: it changes with the model's content, the template, pooling and truncation."""
        return self._vectors("representation", "prompt and reply")

    def fill(self, wanted: str, given: Mapping[str, Any]) -> Any:
        """The value of a field of `selection.table.FILLED`, from the parameters that a recipe gives beside it.

        Raises `InputError` for a model that is not named or not there.
        """
        match wanted:
            case "representation":
                return self.spec()
            case "instructions":
                return self._vectors("instructions", "prompt")
            case "tokenizer":
                return self._known(self.own(None))
            case "length":
                return self.length(self.own(None))
            case "repetition":
                from selection.repetition import spec

                return spec()
            case "response" | "response_alone":
                return Spec(wanted, self._pass(self.own(given["model"]), given["template"]))
            case "scores":
                scorers = {role: self._known(_required(given, role, "deita")) for role in ("complexity", "quality")}
                chosen = self.representation
                return Spec(wanted, scorers | {"max_length": chosen.max_length, "dtype": chosen.dtype})
            case "degradation":
                pruned = self.base if self.original is not None else None
                damaged = self._known(_required({"damaged": given["damaged"] or pruned}, "damaged", "paser"))
                whole = self.own(given["whole"] or self.original)
                return Spec(wanted, self._pass(whole, "tulu") | {"damaged": damaged})
            case "gradient" | "target_gradient":
                return self._gradient(wanted, given)
            case _:
                raise ValueError(f"nothing fills {wanted!r}")

    def length(self, model: str) -> Spec:
        """The tokens of each row, by the tokenizer of `model`."""
        return Spec("length", {"unit": "tokens", "tokenizer": self._known(model)})

    def _gradient(self, wanted: str, given: Mapping[str, Any]) -> Spec:
        """Before the warm-up has run it is known by what it is asked with."""
        _check_gradient(given)
        base = self.own(given["model"])
        asked = canonical({name: given[name] for name in ("warmup", "checkpoints")} | {"model": self._known(base)})
        warmed = self.warmed.get(asked, (asked, Path()))[0]
        step = {"as": "a step of Adam" if wanted == "gradient" else "it is", "dimensions": given["dimensions"]}
        return Spec(wanted, self._pass(base, "tulu") | {"warmup": warmed} | step)

    def warmups(self, specs: Iterable[Spec]) -> list[str]:
        """What the warm-ups that `specs` need and that have not run are asked with."""
        asked = {spec.params["warmup"] for spec in specs if spec.name == "gradient"}
        return sorted(asked - {key for key, _ in self.warmed.values()})

    def reads_tiny(self, specs: Iterable[Spec]) -> bool:
        """Whether some of `specs` are measured by the shipped model, which knows generated text only."""
        named = [self.names.get(value) for spec in specs for value in spec.params.values() if isinstance(value, str)]
        return any(found is not None and found[0] == TINY for found in named)

    def warmup_costs(self, specs: Iterable[Spec]) -> list[dict[str, float]]:
        """What the warm-up runs took at whose checkpoints `specs` are measured."""
        folders = {key: path for key, path in self.warmed.values()}
        keys = {spec.params["warmup"] for spec in specs if spec.name == "gradient"}
        return [json.loads((folders[key] / "training.json").read_text()) for key in sorted(keys)]

    def compute(self, specs: Sequence[Spec]) -> Compute:
        """What measures `specs`, all of one pass. Loads the models."""
        name = specs[0].name
        if name in WANTS and "encoder" not in specs[0].params:
            return self._forward(specs)
        makers = {
            "representation": self._encoded,
            "instructions": self._encoded,
            "response_alone": self._alone,
            "scores": self._scores,
            "degradation": self._degradation,
            "gradient": self._gradients,
            "target_gradient": self._gradients,
            "trigrams": _trigrams,
            "ngrams": _ngrams,
            "repetition": _repetition,
            "concepts": _concepts,
            "length": self._lengths,
        }
        if name not in makers:
            raise InputError(f"no signal {name!r}; known signals: {', '.join(makers)}")
        return makers[name](specs[0])

    def _vectors(self, name: str, text: str) -> Spec:
        if self.representation.encoder is not None:
            dtype = {} if self.representation.dtype == "float32" else {"dtype": self.representation.dtype}
            return Spec(name, {"encoder": self._known(self.name, template="none"), "text": text} | dtype)
        pooling = {"pooling": "position-weighted mean of the last hidden states"}
        prompt = {"text": text} if name == "instructions" else {}
        return Spec(name, self._pass(self.name, "tulu") | pooling | prompt)

    def _pass(self, name: str, template: str) -> dict[str, Any]:
        return {
            "model": self._known(name, template),
            "max_length": self.representation.max_length,
            "dtype": self.representation.dtype,
        }

    def own(self, named: str | None) -> str:
        """The model whose likelihoods count: the one named, else the one that is tuned, else that of rows' vectors."""
        return named or self.base or self.representation.model or TINY

    @property
    def trusted(self) -> frozenset[str]:
        """Names of models whose own code the recipe allows to run."""
        return self.allowed | (frozenset([self.name]) if self.representation.trust_remote_code else frozenset())

    def _known(self, name: str, template: str = "tulu") -> str:
        fetch(name, trust_remote_code=name in self.trusted)  # a hub model's key is its content
        key = fingerprint(name, template)
        self.names[key] = name, template
        return key

    def _forward(self, specs: Sequence[Spec]) -> Compute:
        """One forward pass for all that is wanted of a row; replies to one prompt share it where they alone are."""
        from models.likelihood import response_values, score_responses
        from models.protocol import Want

        names = {spec.name for spec in specs}
        if names == {"response"}:
            return _counted([self._load(specs[0])], lambda rows, model: {"response": score_responses(model, rows)})
        wants = frozenset(Want(WANTS[name]) for name in names)

        def values(rows: Sequence[Messages], model: "LocalModel") -> Values:
            measured = model.measure(rows, wants)
            found = {"representation": measured.representation, "instructions": measured.prompt_representation}
            if "response" in names:
                found["response"] = response_values(measured)
            return {name: array for name, array in found.items() if array is not None}

        return _counted([self._load(specs[0])], values)

    def _alone(self, spec: Spec) -> Compute:
        from models.likelihood import response_alone

        return _counted([self._load(spec)], lambda rows, model: {spec.name: response_alone(model, rows)})

    def _scores(self, spec: Spec) -> Compute:
        from models.scorer import scores

        models = [self._load(spec, role) for role in ("complexity", "quality")]
        return _counted(models, lambda rows, complexity, quality: {spec.name: scores(complexity, quality, rows)})

    def _degradation(self, spec: Spec) -> Compute:
        from models.divergence import divergence

        models = [self._load(spec, role) for role in ("damaged", "model")]
        return _counted(models, lambda rows, damaged, whole: {spec.name: divergence(damaged, whole, rows)})

    def _gradients(self, spec: Spec) -> Compute:
        """One checkpoint after the other for each chunk: only one model is in memory, however many checkpoints."""
        from models.gradients import gradients
        from models.lora import warm_factors

        folder = {key: path for key, path in self.warmed.values()}[spec.params["warmup"]]
        dims, adam = spec.params["dimensions"], spec.name == "gradient"

        def compute(rows: Sequence[Example]) -> tuple[Values, int]:
            parts, flops = [], 0
            for adapter, share in kept(folder):
                model = self._load(spec, adapter=adapter)()
                found = gradients(model, warm_factors(model, adapter), _messages(rows), adam=adam, dims=dims)
                parts.append(found * np.float16(share**0.5))
                flops += BACKWARD * forward_flops(model.parameters, model.tokens_processed)
                del model
            return {spec.name: np.hstack(parts)}, flops

        return compute

    def _encoded(self, spec: Spec) -> Compute:
        from models.encoder import SentenceEncoder, prompt_text, row_text

        name, dtype = self._name_of(spec.params["encoder"])[0], str(spec.params.get("dtype", "float32"))
        encoder = SentenceEncoder(name, dtype=dtype, trust_remote_code=name in self.trusted)
        text = prompt_text if spec.name == "instructions" else row_text
        return lambda rows: ({spec.name: encoder.embed([text(row.messages) for row in rows])}, 0)

    def _lengths(self, spec: Spec) -> Compute:
        if spec.params["unit"] == "characters":
            return lambda rows: ({spec.name: np.array([_characters(row) for row in rows], np.int64)}, 0)
        from models.tokens import row_lengths

        name = self._name_of(spec.params["tokenizer"])[0]
        return lambda rows: ({spec.name: row_lengths(name, _messages(rows))}, 0)

    def _name_of(self, key: str) -> tuple[str, str]:
        return self.names[key]

    def _load(self, spec: Spec, role: str = "model", adapter: Path | None = None) -> "Load":
        name, template = self._name_of(spec.params[role])
        limit, dtype = spec.params["max_length"], spec.params["dtype"]
        if adapter is None:
            return partial(_loaded, name, template, limit, dtype, name in self.trusted)
        return partial(_adapted, name, template, limit, dtype, name in self.trusted, adapter)


def _adapted(
    name: str, template: str, max_length: int, dtype: str, trusted: bool, adapter: Path | None
) -> "LocalModel":
    from models.local import LocalModel

    return LocalModel.load(
        name, dtype=dtype, max_length=max_length, template=template, trust_remote_code=trusted, adapter=adapter
    )


@lru_cache(maxsize=MODELS_KEPT)
def _loaded(name: str, template: str, max_length: int, dtype: str, trusted: bool) -> "LocalModel":
    """A model of this process: several passes share it."""
    return _adapted(name, template, max_length, dtype, trusted, None)


def _check_gradient(given: Mapping[str, Any]) -> None:
    if not 0 < given["warmup"] <= 1:
        raise InputError(f"less: warmup is {given['warmup']}; give the share of the candidates to warm up on, up to 1")
    if given["dimensions"] < 1:
        raise InputError(f"less: dimensions is {given['dimensions']}; give at least 1")
    Warmup(checkpoints=given["checkpoints"])


def _required(given: Mapping[str, Any], role: str, method: str) -> str:
    if given[role] is None:
        raise InputError(f"method {method!r} needs a model as `{role}`: give its folder or its hub name")
    return str(given[role])


def _messages(rows: Sequence[Example]) -> list[Messages]:
    return [row.messages for row in rows]


def _characters(row: Example) -> int:
    return sum(len(message.content) for message in row.messages)


def _counted(models: Sequence["Load"], values: Callable[..., Values]) -> Compute:
    """`values` of rows by the models, which are loaded where they are not, and the operations that they took."""

    def compute(rows: Sequence[Example]) -> tuple[Values, int]:
        here = [load() for load in models]
        before = [model.tokens_processed for model in here]
        found = values(_messages(rows), *here)
        spent = [model.tokens_processed - was for model, was in zip(here, before, strict=True)]
        return found, sum(forward_flops(model.parameters, n) for model, n in zip(here, spent, strict=True))

    return compute


def _of_text(spec: Spec, text: Callable[[Messages], str], values: Callable[[Sequence[str]], Array]) -> Compute:
    return lambda rows: ({spec.name: values([text(row.messages) for row in rows])}, 0)


def _all_text(messages: Messages) -> str:
    return "\n".join(message.content for message in messages)


def _replies(messages: Messages) -> str:
    return "\n".join(message.content for message in messages if message.role == "assistant")


def _trigrams(spec: Spec) -> Compute:
    from selection.trigrams import trigrams

    return _of_text(spec, _all_text, partial(trigrams, dims=int(spec.params["dims"])))


def _ngrams(spec: Spec) -> Compute:
    from selection.ngrams import ngrams

    return _of_text(spec, _all_text, partial(ngrams, dims=int(spec.params["dims"]), hashing=spec.params["hashing"]))


def _repetition(spec: Spec) -> Compute:
    from selection.repetition import repetition

    return _of_text(spec, _replies, repetition)


def _concepts(spec: Spec) -> Compute:
    from models.encoder import prompt_text
    from selection.concepts import concepts

    return _of_text(spec, prompt_text, partial(concepts, dims=int(spec.params["dims"])))


def passes(specs: Iterable[Spec]) -> list[list[Spec]]:
    """`specs`, each once, those that one forward pass gives together."""
    found: dict[object, list[Spec]] = {}
    for spec in {spec.key: spec for spec in specs}.values():
        together = spec.name in WANTS and "model" in spec.params
        found.setdefault(tuple(spec.params[name] for name in PASS) if together else spec.key, []).append(spec)
    return list(found.values())
