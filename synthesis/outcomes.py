"""Rows as they leave a synthesizer: kept, or refused with what is wrong with them."""

from models.dialogue import Accepted, Rejected
from synthesis.fault import Fault
from warehouse.records import Example


def refused(row: Example, fault: Fault) -> Rejected:
    """`row`, with all that is known of it, as one that is not kept."""
    return Rejected(fault.reason, fault.detail, row)


def outcome(row: Example, fault: Fault | None) -> Accepted | Rejected:
    """`row` as one that is kept, or not where there is a fault."""
    return Accepted(row) if fault is None else refused(row, fault)
