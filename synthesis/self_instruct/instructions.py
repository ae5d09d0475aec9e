"""Instructions out of a reply that goes on with a numbered list, and which of them are kept (Self-Instruct, §2.2)."""

import re
import string
from collections.abc import Sequence
from functools import cache

from synthesis.fault import Fault
from synthesis.self_instruct.novelty import Novelty

LEAST_WORDS, MOST_WORDS = 4, 150
BLACKLIST = (
    "image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps", "draw", "plot",
    "go to",
)  # fmt: skip  # what a model of text cannot do
PROGRAM = "write a program"
NUMBER = re.compile(r"^[ \t*#]*\d+[ \t]*[.):](?![\d])[ \t*]*", re.MULTILINE)

OF_INSTRUCTIONS = frozenset(
    {
        "no_list", "too_few_words", "too_many_words", "blacklisted", "write_a_program", "starts_with_punctuation",
        "not_ascii", "similar",
    }
)  # fmt: skip


def one_line(instruction: str) -> str:
    """An instruction as an entry of a list."""
    return " ".join(instruction.split()).rstrip(": ")


def read_list(reply: str) -> list[str] | Fault:
    """The entries of a numbered list, each with a capital first letter; what comes before the first is no entry."""
    entries = [" ".join(part.split()).strip("* ") for part in NUMBER.split(reply)[1:]]
    found = [entry[0].upper() + entry[1:] for entry in entries if entry]
    return found or Fault("no_list", reply.strip()[:80])


def unfit(instruction: str, blacklist: Sequence[str] = BLACKLIST, ascii_start: bool = True) -> Fault | None:
    """Why an instruction is not kept, whatever else there is, in the order of the published code; None where it is."""
    count = len(instruction.split())
    if count < LEAST_WORDS:
        return Fault("too_few_words", f"{count} words")
    if count > MOST_WORDS:
        return Fault("too_many_words", f"{count} words")
    if blacklist and (found := _any_of(tuple(blacklist)).search(instruction)):
        return Fault("blacklisted", found[0])
    if instruction.casefold().startswith(PROGRAM):
        return Fault("write_a_program")
    if instruction[0] in string.punctuation:
        return Fault("starts_with_punctuation", instruction[0])
    return Fault("not_ascii", instruction[0]) if ascii_start and not instruction[0].isascii() else None


def admitted(
    instruction: str, pool: Novelty, blacklist: Sequence[str] = BLACKLIST, ascii_start: bool = True
) -> Fault | None:
    """Why an instruction is not taken into the pool; None where it now is in it."""
    if fault := unfit(instruction, blacklist, ascii_start):
        return fault
    if near := pool.nearest(instruction):
        return Fault("similar", f"ROUGE-L {near.similarity:.3f}: {near.text[:80]}")
    pool.add(instruction)
    return None


@cache
def _any_of(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, words))})\b", re.IGNORECASE)
