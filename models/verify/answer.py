"""Finding the final answer in a reply: plain functions of text, each in time linear in the text.

The order is that of DART-Math's verification (Tong et al. 2024, arXiv 2407.13690): behind the last "Therefore" or
"####", in the last box, behind "answer is", and only then the last formula or number. Unlike its code, a mark with
nothing behind it does not hide an answer that stands before it.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

MAX_CHARS = 100_000
"""Longer replies are not read."""

How = Literal["marked", "boxed", "stated", "bare", "formula", "number"]
MARK = re.compile(r"####|(?<!#)# ?Answer\b:?|\b[Tt]herefore\b[,:]?")
BRACE = re.compile(r"\\[^a-zA-Z]|[{}]", re.DOTALL)
BOX = re.compile(r"\\(?:boxed|fbox)(?:(\{)| ([^\s{$\\]{1,40}))")
STATED = re.compile(r"\banswer(?:[ \t]+is\b[ \t]*:?|\*{0,2}[ \t]*[:=])", re.IGNORECASE)
IS_THE_ANSWER = re.compile(r"\bis the (?:final |correct )?answer\b", re.IGNORECASE)
OPENING = re.compile(r"(?:\s|\*|_(?=\s)|:|\\\[|\\\(|\$\$?)*")
SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")
FORMULA = re.compile(
    r"\$\$([^$]{1,2000})\$\$|\$([^$\n]{1,2000})\$|\\\(((?:(?!\\[()])[^\n]){1,2000})\\\)|\\\[((?:(?!\\[\[\]]).){1,2000})\\\]",
    re.DOTALL,
)
NUMBER = re.compile(r"(?:(?<![\w.)])[-+−])?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:/\d+(?![\d/]))?(?:\s?\\?%)?")
BARE_CHARS = 80
WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{3,}")
FENCES = (("$", "$"), (r"\[", r"\]"), (r"\(", r"\)"))
AROUND = " \t\r\n.,;:!?\"'`*_$"
BEFORE, BEHIND = " \t\r\n,;:\"'`*_$", " \t\r\n.,;:\"'`*_$"  # ".5" and "5!" are numbers


@dataclass(frozen=True, slots=True)
class Found:
    """An answer, and what told that it is one: a mark, a box, the words "answer is", that there is nothing else, or its
    place at the end."""

    text: str
    how: How


def final_answer(reply: str) -> Found | None:
    """The final answer of `reply`, or None. The text is stripped of white space, dollars and closing punctuation."""
    marks = list(MARK.finditer(reply))
    tail = reply[marks[-1].end() :] if marks else ""
    for part in (tail, reply):
        if found := _boxed(part) or _stated(part):
            return found
        if marks and part is tail and marks[-1][0].startswith("#") and (line := _first_line(tail)):
            return Found(line, "marked")
    return _bare(reply) or _last(tail) or _last(reply)


def plain(text: str) -> str:
    """`text` for comparing: compatibility forms and case folded, white space single, no punctuation around it."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(AROUND)


def stripped(text: str) -> str:
    """`text` without white space, quotes, dollars and punctuation around it."""
    return text.lstrip(BEFORE).rstrip(BEHIND)


def _bare(reply: str) -> Found | None:
    """A reply that is an expression, or a few words without a number, and nothing else."""
    text = stripped(reply)
    if not text or len(text) > BARE_CHARS or "\n" in text or "$" in text or r"\boxed" in text:
        return None
    expression = not WORD.search(text) and any(char.isdigit() for char in text)
    words = not any(char.isdigit() for char in text)
    return Found(text, "bare") if expression or words else None


def _boxed(text: str) -> Found | None:
    """What is in the last `\\boxed{...}` that is closed."""
    ends = _closings(text) if "{" in text else {}
    for box in reversed(list(BOX.finditer(text))):
        inside = box[2] if box[1] is None else text[box.end() : ends.get(box.end() - 1, box.end())]
        if inside.strip():
            return Found(stripped(inside), "boxed")
    return None


def _closings(text: str) -> dict[int, int]:
    """The place of the closing brace of each opening one that has one."""
    ends: dict[int, int] = {}
    opened: list[int] = []
    for brace in BRACE.finditer(text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif brace[0] == "}" and opened:
            ends[opened.pop()] = brace.start()
    return ends


def _stated(text: str) -> Found | None:
    """What follows the last "answer is" or "answer:", or stands before the last "is the answer"."""
    said = [match.end() for match in STATED.finditer(text)]
    before = [match.start() for match in IS_THE_ANSWER.finditer(text)]
    if before and (not said or before[-1] > said[-1]):
        start = max(text.rfind("\n", 0, before[-1]), text.rfind(". ", 0, before[-1])) + 1
        sentence = text[start : before[-1]]
        return Found(found.text if (found := _last(sentence)) else stripped(sentence), "stated")
    if said and (line := _first_line(text[said[-1] :])):
        return Found(line, "stated")
    return None


def _first_line(text: str) -> str:
    """The first sentence or line of `text`, past what only opens it."""
    opening = OPENING.match(text)
    start = opening.end() if opening else 0
    end = SENTENCE_END.search(text, start)
    line = text[start : end.start() if end else len(text)]
    for opening_mark, closing_mark in FENCES:  # what stands behind a formula that was opened is talk
        inside, closed, behind = line.partition(closing_mark)
        if closed and opening_mark not in behind and text[:start].rstrip().endswith(opening_mark):
            line = inside
    return stripped(line)


def _last(text: str) -> Found | None:
    """The last formula of `text`, else its last number."""
    if formulas := [next(filter(None, match.groups()), "") for match in FORMULA.finditer(text)]:
        return Found(stripped(formulas[-1]), "formula")
    if numbers := NUMBER.findall(text):
        return Found(numbers[-1].strip(), "number")
    return None
