"""All row filters by name."""

from collections.abc import Callable, Mapping

from warehouse.cleaning.boilerplate import Boilerplate
from warehouse.cleaning.code_fence import CodeFence
from warehouse.cleaning.empty_reply import EmptyReply
from warehouse.cleaning.findings import RowFilter
from warehouse.cleaning.language import Language
from warehouse.cleaning.length import Length
from warehouse.cleaning.licence import Licence
from warehouse.cleaning.mojibake import Mojibake
from warehouse.cleaning.pii import Pii
from warehouse.cleaning.refusal import Refusal
from warehouse.cleaning.repetition import Repetition
from warehouse.cleaning.truncated_reply import TruncatedReply
from warehouse.cleaning.turns import Turns

ROW_FILTERS: Mapping[str, Callable[..., RowFilter]] = {
    "length": Length,
    "turns": Turns,
    "language": Language,
    "licence": Licence,
    "empty_reply": EmptyReply,
    "truncated_reply": TruncatedReply,
    "refusal": Refusal,
    "boilerplate": Boilerplate,
    "repetition": Repetition,
    "code_fence": CodeFence,
    "mojibake": Mojibake,
    "pii": Pii,
}
