"""What a model is shown of a table (Dynosaur, step 1): two rows, cut, without identifiers and nested cells."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from synthesis.dynosaur.card import Row, is_scalar
from warehouse.records import canonical

SHOWN_ROWS = 2
CHARS = 1000  # of a text; of a list or a mapping as JSON
IDENTIFIERS = frozenset({"id", "ids", "idx", "uid", "uuid", "guid", "qid", "pmid", "userid", "identifier"})
MEDIA = frozenset({"image", "images", "audio"})
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def name_words(name: str) -> list[str]:
    """The words of a column's name: `user_id`, `userId` and `User ID` have two."""
    return [word.lower() for word in WORD.findall(name)]


def is_identifier(name: str) -> bool:
    """Whether a column is named as an identifier: by a word of its name, so not `video`, `validity` or `idiom`."""
    return bool(IDENTIFIERS & set(name_words(name)))


def is_media(name: str) -> bool:
    """Whether a column is named as pictures or sound."""
    return bool(MEDIA & set(name_words(name)))


def shown(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The first rows, each with the columns that can be shown in all of them: at most `SHOWN_ROWS` rows."""
    cut = [{name: visible(value) for name, value in row.items()} for row in rows[:SHOWN_ROWS]]
    names = [name for name in (cut[0] if cut else ()) if all(row.get(name) is not None for row in cut)]
    return [{name: row[name] for name in names if not is_identifier(name)} for row in cut]


def visible(value: Any) -> Any:
    """A cell as it is shown; None for one that is not: empty, or nested deeper than a list or a mapping of scalars."""
    if is_scalar(value):
        return _text(value) or None
    if isinstance(value, Mapping) and all(map(is_scalar, value.values())):
        return _fitting({str(name): _text(inner) for name, inner in value.items()})
    if isinstance(value, list | tuple) and all(isinstance(inner, str) for inner in value):
        kept = _fitting({str(place): inner[:CHARS] for place, inner in enumerate(value)}, as_list=True)
        return list(kept.values()) if kept else None
    return None


def _text(value: Any) -> str:
    return str(value)[: 2 * CHARS].strip()[:CHARS] if isinstance(value, str) else str(value).strip()[:CHARS]


def _fitting(values: dict[str, str], as_list: bool = False) -> dict[str, str] | None:
    """The first of `values` that fit into `CHARS` characters of JSON together; None where not one does."""
    kept = dict[str, str]()
    for name, value in values.items():
        kept[name] = value
        if len(canonical(list(kept.values()) if as_list else kept)) > CHARS:
            del kept[name]
            break
    return kept or None
