"""The part of a recipe that says how many workers share one training run."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(gt=0)]


class Scale(BaseModel):
    """Workers that share each training run. They change how long it takes, not what is learnt."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workers: Count | None = Field(None, description="processes that share one training run")
    elastic: tuple[Count, Count] | None = Field(
        None, description="in place of `workers`: the fewest and the most; as many as there is room for share the run"
    )
    gpus: Literal[0, 1] = Field(0, description="GPUs of each worker")
    cpus: Count = Field(1, description="processor cores of each worker")
    retries: Annotated[int, Field(ge=0)] = Field(2, description="how often the run goes on after it lost a worker")
    storage: str | None = Field(
        None, description="absolute path that all machines share, for checkpoints; by default they are in the home"
    )

    @model_validator(mode="after")
    def _sound(self) -> "Scale":
        if (self.workers is None) == (self.elastic is None):
            raise ValueError("give either `workers`, a number, or `elastic`, the fewest and the most")
        if self.sizes[0] > self.sizes[1]:
            raise ValueError(f"`elastic` is {list(self.sizes)}; the fewest come first, then the most")
        if self.storage is not None and not Path(self.storage).is_absolute():
            raise ValueError(f"`storage` is {self.storage!r}; give an absolute path that every machine reaches")
        return self

    @property
    def sizes(self) -> tuple[int, int]:
        """The fewest and the most workers, which may be the same."""
        return self.elastic or (self.workers or 0, self.workers or 0)
