"""Rows that are not kept: a reason from a closed list, never silence."""

from dataclasses import dataclass
from enum import StrEnum

EXCERPT = 200  # characters of a reject's detail
ROW_LIMIT = 8 * 2**20  # bytes of a row as text; the longest useful conversation is far below it


class Reason(StrEnum):
    """Why a row was not kept."""

    MALFORMED = "malformed"  # not JSON, not an object, or the wrong number of CSV fields
    UNKNOWN_COLUMNS = "unknown_columns"
    NO_ASSISTANT_TURN = "no_assistant_turn"
    NO_USER_TURN = "no_user_turn"  # none at all, or only blank ones
    EMPTY_REPLY = "empty_reply"
    NULL_CONTENT = "null_content"
    NOT_TEXT = "not_text"  # an image part, a boolean, an object where text belongs
    TOOL_CALLS = "tool_calls"  # a call kept beside the text, which a message cannot hold
    UNKNOWN_ROLE = "unknown_role"
    INVALID_UTF8 = "invalid_utf8"
    LONE_SURROGATE = "lone_surrogate"
    TOO_LARGE = "too_large"


@dataclass(frozen=True, slots=True)
class Refused:
    """Why one row is not kept."""

    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that was not kept, and where it stands: `a.jsonl:12` (lines from 1) or `a.parquet row 12` (from 0)."""

    source: str
    location: str
    reason: Reason
    detail: str


def excerpt(text: str) -> str:
    """At most `EXCERPT` characters of `text`, safe to store: no lone surrogates."""
    short = text if len(text) <= EXCERPT else text[: EXCERPT - 1] + "…"
    return short.encode("utf-8", "replace").decode("utf-8")
