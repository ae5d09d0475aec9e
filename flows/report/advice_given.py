"""What `winnow advise` said of a run, how sure it is, and the pilot runs it was said from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flows.advice.advised import told
from flows.report.book import Book
from flows.report.text import Excerpt, excerpt, label, percent
from warehouse.records import Estimate

GAIN = "gain over"  # how the names of differences begin
PILOTS = 120  # rows of the table
DIAGNOSTICS = 4000  # characters


@dataclass(frozen=True, slots=True)
class Share:
    """What is advised of one source. `rows` of the training file and those there again are None without a file."""

    source: str
    value: Estimate
    available: int
    rows: int | None
    again: int | None


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of an ordered manifest, and its rows by source."""

    name: str
    rows: int
    sources: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Remark:
    """What was refused or warned of: a reason from the closed list, and the numbers in a sentence."""

    reason: str
    detail: str

    @property
    def words(self) -> str:
        return self.reason.replace("_", " ")


@dataclass(frozen=True, slots=True)
class Pilot:
    """One run on a mixture. `value` is None where it failed, `why` says by what."""

    mixture: str
    rows: int
    seed: int
    value: Estimate | None
    why: str


@dataclass(frozen=True, slots=True)
class Given:
    """One advice. `trained` says that its forecasts are of a loss, read from pilot runs; else they are distances."""

    key: str
    advisor: str
    budget: int | None
    says: str
    shares: tuple[Share, ...]
    forecasts: Mapping[str, Estimate]
    stages: tuple[Stage, ...]
    refusals: tuple[Remark, ...]
    warnings: tuple[Remark, ...]
    pilots: tuple[Pilot, ...]
    sources: tuple[str, ...]
    diagnostics: Excerpt

    @property
    def trained(self) -> bool:
        return bool(self.pilots)

    @property
    def failed(self) -> list[Pilot]:
        return [pilot for pilot in self.pilots if pilot.value is None]

    @property
    def ended(self) -> list[Pilot]:
        """What is shown of the runs that have a value, by mixture, rows and seed."""
        return [pilot for pilot in self.pilots if pilot.value is not None][:PILOTS]

    @property
    def left_out(self) -> int:
        return len(self.pilots) - len(self.failed) - len(self.ended)

    @property
    def largest(self) -> int:
        """Rows of the largest run that has a value; 0 without one."""
        return max((pilot.rows for pilot in self.pilots if pilot.value is not None), default=0)

    @property
    def levels(self) -> dict[str, Estimate]:
        """The forecasts that are no differences."""
        return {name: each for name, each in self.forecasts.items() if not name.startswith(GAIN)}


def advice_of(book: Book) -> tuple[Given, ...]:
    """All advice of the run that is in the store."""
    made = [(key, book.artifact("advice", key)) for key in book.keys("advice")]
    return tuple(_given(book, key, told(artifact), artifact.manifest["params"]) for key, artifact in made if artifact)


def _given(book: Book, key: str, said: Mapping[str, Any], params: Mapping[str, Any]) -> Given:
    files = book.rows(
        "SELECT source, rows, repeats FROM mixtures WHERE mixture = ANY(?) AND purpose = 'advised'",
        book.keys("mixture"),
    )
    drawn = {row["source"]: (row["rows"], row["repeats"]) for row in files}
    nothing = (0, 0) if drawn else (None, None)
    return Given(
        key=key,
        advisor=label(params["advisor"]),
        budget=params["budget"],
        says=said["says"],
        shares=tuple(
            Share(label(name), Estimate(**each), said["available"][name], *drawn.get(name, nothing))
            for name, each in said["shares"].items()
        ),
        forecasts={label(name): Estimate(**each) for name, each in said["forecasts"].items()},
        stages=tuple(
            Stage(label(each["name"]), each["rows"], _labelled(each["per_source"])) for each in said["manifests"]
        ),
        refusals=_remarks(said["refusals"]),
        warnings=_remarks(said["warnings"]),
        pilots=_pilots(said["pilots"]),
        sources=tuple(label(name) for name in said["available"]),
        diagnostics=excerpt(json.dumps(said["diagnostics"], ensure_ascii=False, indent=2), DIAGNOSTICS, 0),
    )


def _labelled(counts: Mapping[str, int]) -> dict[str, int]:
    return {label(name): n for name, n in counts.items()}


def _remarks(found: Sequence[Mapping[str, str]]) -> tuple[Remark, ...]:
    return tuple(Remark(label(each["reason"]), each["detail"]) for each in found)


def _pilots(found: Sequence[Mapping[str, Any]]) -> tuple[Pilot, ...]:
    pilots = [
        Pilot(mixed(each["shares"]), each["rows"], each["seed"], _measured(each), each["detail"] or "")
        for each in found
    ]
    places = {mixture: place for place, mixture in enumerate(dict.fromkeys(pilot.mixture for pilot in pilots))}
    return tuple(sorted(pilots, key=lambda pilot: (places[pilot.mixture], pilot.rows, pilot.seed)))


def _measured(run: Mapping[str, Any]) -> Estimate | None:
    return None if run["value"] is None else Estimate(run["value"], run["low"], run["high"], run["n"])


def mixed(shares: Mapping[str, float]) -> str:
    """A mixture in words; sources without a share are left out, and one alone has no number."""
    parts = {label(name): share for name, share in shares.items() if share > 0}
    return ", ".join(name if len(parts) == 1 else f"{name} {percent(share)}" for name, share in parts.items())
