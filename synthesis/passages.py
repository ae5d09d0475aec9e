"""Passages to ask about: the replies or prompts of seeds, or the rows of files of documents."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from synthesis.exchange import last_exchange
from synthesis.fault import Fault
from synthesis.files import rows_of
from synthesis.languages import words
from synthesis.protocol import Seeds
from synthesis.skill import Rng
from warehouse.errors import InputError
from warehouse.licences import card_licence, first_text, normalised_licence
from warehouse.records import Example, digest
from warehouse.rejects import Refused

Side = Literal["reply", "prompt"]
SHORTEST = 4  # words; models copy passages of two or three


@dataclass(frozen=True, slots=True)
class Passage:
    """A text to ask about. It comes from `seed`, or stands at `place` of a file of documents, under `licence`."""

    text: str
    title: str = ""
    place: str = ""
    licence: str | None = None
    seed: Example | None = None


@dataclass(frozen=True, slots=True)
class Unread:
    """What no passage can be taken from, and why."""

    fault: Fault
    seed: Example | None = None


def passages_of(seeds: Seeds, side: Side) -> Iterator[Passage | Unread]:
    """The last reply of each seed, or the prompt before it; its title is what its meta calls so."""
    for seed in seeds:
        exchange = last_exchange(seed)
        if exchange is None:
            yield Unread(Fault("no_passage"), seed)
        else:
            text = exchange.reply if side == "reply" else exchange.instruction
            yield _long_enough(Passage(text.strip(), str(seed.meta.get("title", "")), seed=seed))


def documents(path: str, column: str, title_column: str) -> Iterator[Passage | Unread]:
    """The rows of the files at `path`, each under the licence that it names, or else the card of its folder.

    Raises `InputError` where a row has no `column`.
    """
    of_folder = card_licence(Path(path).expanduser())
    for place, row in rows_of(path):
        if isinstance(row, Refused):
            yield Unread(Fault("unreadable_row", f"{place}: {row.reason}: {row.detail}"))
        elif column not in row:
            raise InputError(f"{place}: there is no column {column!r}; columns: {', '.join(map(str, row))}")
        elif not isinstance(text := row[column], str) or not text.strip():
            yield Unread(Fault("no_passage", place))
        else:
            stated = first_text(row.get("licence") or row.get("license"))
            licence = normalised_licence(stated) if stated else of_folder
            yield _long_enough(Passage(text.strip(), str(row.get(title_column) or ""), place, licence))


def sampled(found: Iterable[Passage | Unread], sample: int, rng: Rng) -> list[Passage | Unread]:
    """About `sample` of the passages, spread evenly over their titles in order; the others are `Unread`.

    Each is taken where a uniform draw of its own is at most I = sample / passages (SWIM-IR, appendix E.4).
    """
    everything = list(found)
    passages = [one for one in everything if isinstance(one, Passage)]
    drawn: list[Passage | Unread] = [one for one in everything if isinstance(one, Unread)]
    share, root = sample / max(len(passages), 1), int(rng.integers(2**63))
    for passage in sorted(passages, key=lambda passage: (passage.title, passage.text)):
        own = np.random.default_rng([root, int(digest(f"{passage.title}\n{passage.text}"), 16)])
        drawn.append(passage if own.random() <= share else Unread(Fault("not_sampled", passage.title), passage.seed))
    return drawn


def _long_enough(passage: Passage) -> Passage | Unread:
    if len(words(passage.text)) >= SHORTEST:
        return passage
    return Unread(Fault("passage_too_short", passage.text), passage.seed)
