"""A synthesis that a recipe asks for, checked: the synthesizer, and who speaks in each of its roles."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.entries import make
from flows.recipes import Source
from flows.voices import Space, Voice, name_of, voice_of
from models.endpoint.spec import EndpointSpec
from models.protocol import Prompt, Verifier
from models.verify.table import VERIFIERS
from synthesis.protocol import Synthesizer
from synthesis.table import SYNTHESIZERS
from warehouse.errors import InputError
from warehouse.records import Message

DRAWING = ("max_tokens", "temperature", "top_p")
FILES = ("documents", "synonyms", "tables")  # parameters of synthesizers that name files


@dataclass(frozen=True, slots=True)
class Synthesis:
    """`job` with the model, encoder and verifier of each of its roles."""

    source: Source
    job: Synthesizer
    voices: Mapping[str, Voice]
    spaces: Mapping[str, Space]
    verifiers: Mapping[str, Verifier] = field(default_factory=dict)

    @property
    def name(self) -> str:
        assert self.source.synthesize is not None  # that is what makes it a synthesis
        return self.source.synthesize

    @property
    def params(self) -> dict[str, Any]:
        """What its rows are a function of, beside seeds and the seed of the draw."""
        return {
            "synthesizer": self.name,
            "params": self.source.params,
            "told": self.job.told,
            "models": {role: voice.fingerprint for role, voice in self.voices.items()},
            "encoders": {role: space.fingerprint for role, space in self.spaces.items()},
            "verifiers": {role: verifier.fingerprint for role, verifier in self.verifiers.items()},
        }

    @property
    def named(self) -> dict[str, str]:
        """The model of each role, as a person would name it."""
        return {role: name_of(voice) for role, voice in self.voices.items()}

    @property
    def endpoints(self) -> list[EndpointSpec]:
        return [voice for voice in self.voices.values() if isinstance(voice, EndpointSpec)]


def synthesis_of(source: Source, endpoints: Mapping[str, EndpointSpec], data: Path) -> Synthesis:
    """What `source` asks for; files that its parameters name start at `data`.

    Raises `InputError` for a name, parameter or role that is unknown or missing.
    """
    assert source.synthesize is not None  # asked of those that synthesize
    params = {name: _located(name, value, data) for name, value in source.params.items()}
    job = make("synthesizer", SYNTHESIZERS, source.synthesize, params)
    needs, name = job.needs, source.synthesize
    _check_drawing(name, job)
    _check_roles(name, "models", (*needs.models, *needs.scored), source.models)
    _check_roles(name, "encoders", needs.encoders, source.encoders)
    if needs.seeds and not source.seeds:
        raise InputError(f"synthesizer {name!r} starts from rows: give `seeds`, a list of sources")
    if source.seeds and not needs.seeds:
        raise InputError(f"synthesizer {name!r} reads no seeds: leave `seeds` out")
    voices = {role: voice_of(entry, endpoints) for role, entry in source.models.items()}
    for role in needs.scored:
        if isinstance(voices[role], EndpointSpec):
            raise InputError(
                f"synthesizer {name!r} needs the log-probabilities of given text from the model in role {role!r}, and "
                f"an endpoint gives none: name a model of this machine in `models.{role}`"
            )
    spaces = {role: Space(entry) for role, entry in source.encoders.items()}
    _check_roles(name, "verifiers", needs.verifiers, dict.fromkeys(needs.verifiers) | source.verifiers)
    verifiers = {role: make("verifier", VERIFIERS, role, source.verifiers.get(role, {})) for role in needs.verifiers}
    return Synthesis(source, job, voices, spaces, verifiers)


def _check_drawing(name: str, job: Synthesizer) -> None:
    """Raise `InputError` where no reply could be drawn as the job says."""
    given = {field: value for field in DRAWING if (value := getattr(job, field, None)) is not None}
    try:
        Prompt((Message("user", "?"),), **given)
    except ValueError as error:
        raise InputError(f"synthesizer {name!r}: {error}") from error


def _located(name: str, value: Any, data: Path) -> Any:
    """A parameter with the paths in it, where it is one that names files, as absolute ones."""
    if name in FILES and isinstance(value, str):
        return str(data / Path(value).expanduser())
    if name in FILES and isinstance(value, list):
        return [
            each | {"path": _located(name, each["path"], data)} if isinstance(each, dict) and "path" in each else each
            for each in value
        ]
    return value


def _check_roles(name: str, key: str, needed: tuple[str, ...], given: Mapping[str, object]) -> None:
    if missing := [role for role in needed if role not in given]:
        raise InputError(
            f"synthesizer {name!r} asks for {key} in the roles {', '.join(dict.fromkeys(needed))}; missing: "
            f"{', '.join(dict.fromkeys(missing))}: give `{key}: {{{missing[0]}: NAME}}`"
        )
    if unknown := [role for role in given if role not in needed]:
        known = ", ".join(dict.fromkeys(needed)) or "none"
        raise InputError(f"synthesizer {name!r} has no role {', '.join(unknown)} in `{key}`; known: {known}")
