"""What a tuning has to fit: a model's layers and linear modules. Known before any weight is read; loads no torch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from models.fingerprint import read_json, shapes_of
from warehouse.errors import InputError

ALL_LINEAR = "all-linear"
Targets = str | tuple[str, ...]
ENDS = ("embed_tokens", "lm_head")
NOT_LINEAR = re.compile(r"emb|wte|wpe|head")  # in the names of matrices that are no linear module, or a head
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")  # as configurations call their number


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The parts of a model that tunings name.

    layers  decoder layers; None where the configuration does not say
    linear  name to the two sizes of the weight, of every linear module but the head
    """

    layers: int | None
    linear: Mapping[str, tuple[int, int]]

    @property
    def names(self) -> str:
        """What targets may be, told to a person."""
        return ", ".join(sorted({name.rpartition(".")[2] for name in self.linear}))

    def targeted(self, targets: Targets) -> dict[str, tuple[int, int]]:
        """The linear modules that `targets` names, or a pattern of their whole names describes.

        Raises `InputError` for names that no linear module has.
        """
        if targets == ALL_LINEAR:
            return dict(self.linear)
        if isinstance(targets, str):
            if alike := {name: shape for name, shape in self.linear.items() if re.fullmatch(targets, name)}:
                return alike
            raise InputError(
                f"targets is {targets!r}, a pattern that no linear module's name matches whole; give a list of "
                f"names: {self.names}; or {ALL_LINEAR}"
            )
        if ends := sorted(set(ENDS) & set(targets)):
            raise InputError(
                f"embeddings and head get no adapter: take {', '.join(ends)} out of targets; known: {self.names}"
            )
        found = {each: [name for name in self.linear if f".{name}".endswith(f".{each}")] for each in targets}
        if absent := [each for each, names in found.items() if not names]:
            raise InputError(
                f"the model has no linear module {', '.join(absent)}, which targets names; its linear modules are "
                f"{self.names}"
            )
        return {name: self.linear[name] for names in found.values() for name in names}


def stored(folder: Path) -> Anatomy:
    """What configuration and headers of the weights' files say: names are those of the files, which may be others."""
    config = read_json(folder / "config.json")
    text = config.get("text_config", config)
    matrices = {name.removesuffix(".weight"): shape for name, shape in shapes_of(folder).items() if len(shape) == 2}
    return Anatomy(
        next((int(text[name]) for name in LAYERS if name in text), None),
        {name: (shape[0], shape[1]) for name, shape in matrices.items() if not NOT_LINEAR.search(name)},
    )
