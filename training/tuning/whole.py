"""What most tunings share: the network as it is, nothing changed in the trainer, whole weights written."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from training.tuning.anatomy import Anatomy
from training.tuning.protocol import Setting
from warehouse.records import Spec


class Whole:
    """The base of tunings, which are frozen dataclasses named as in the table."""

    __slots__ = ()
    NAME: ClassVar[str]

    @property
    def spec(self) -> Spec:
        """Rebuilds this tuning: `TUNINGS[name](**params)`."""
        params = asdict(self)  # type: ignore[call-overload]  # every subclass is a dataclass
        return Spec(self.NAME, {name: list(v) if isinstance(v, tuple) else v for name, v in params.items()})

    def check(self, model: Anatomy) -> None:
        """It fits every model."""

    def prepare(self, network: Any, setting: Setting) -> Any:
        return network

    def arguments(self) -> dict[str, Any]:
        return {}

    def callbacks(self, setting: Setting) -> list[Any]:
        return []

    def optimizer(self, network: Any, setting: Setting) -> tuple[type, dict[str, Any]] | None:
        return None

    def write(self, network: Any, base: str, out: Path) -> None:
        network.save_pretrained(out)
