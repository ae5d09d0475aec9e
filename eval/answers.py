"""Finding the answer in a reply, and comparing it with the gold one: plain functions of text.

Numbers are compared as `Decimal`, never by dropping punctuation: a scorer that does so reads "1.5" as "15".
"""

import re
from decimal import Decimal

from warehouse.errors import InputError

# A sign counts unless it is glued to a digit before it: in "12-5" it is an operator.
NUMBER = re.compile(r"(?:(?<!\d)[-+])?(?:\d*\.\d+|\d+)")
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
MINUS = str.maketrans({"−": "-", "–": "-"})  # the minus sign and the dash that models write for it
# The closing line of GSM8K's gold replies, and what models are asked or wont to say
MARKED = re.compile(r"####|\banswer(?:\s+is)?\s*:|\banswer\s+is\b", re.IGNORECASE)
AT_START = re.compile(r"[\s*$£€\\(\[{]*((?>" + NUMBER.pattern + r"))(?!\s*[-+*/=×÷^]+\s*[$(.\d])")


def compile_answer(pattern: str | None) -> re.Pattern[str] | None:
    """The user's answer pattern; its first group, or the whole match where it has none, is the answer."""
    if pattern is None:
        return None
    try:
        return re.compile(pattern)
    except re.error as error:
        raise InputError(f"answer pattern {pattern!r} is not a regular expression: {error}") from error


def extract(reply: str, pattern: re.Pattern[str] | None) -> str | None:
    """The part of `reply` that is the answer: the last match of `pattern`, or all of it; None where nothing matches."""
    if pattern is None:
        return reply.strip()
    matches = list(pattern.finditer(reply))
    if not matches:
        return None
    found: str | None = matches[-1].group(1 if pattern.groups else 0)
    return None if found is None else found.strip()


def same_text(answer: str | None, gold: str, casefold: bool) -> bool:
    """Whether the two are equal after white space around them is removed (and case, with `casefold`)."""
    if answer is None:
        return False
    a, b = answer.strip(), gold.strip()
    return a.casefold() == b.casefold() if casefold else a == b


def number_in(text: str | None) -> Decimal | None:
    """The number that `text` gives as its answer, or None.

    After a mark ("#### 42", "the final answer is 42", "Answer: 42") it is the number right behind the last mark, unless
    an operator follows it; without one it is the last number of the text. Thousands commas are removed first.
    """
    if text is None:
        return None
    plain = THOUSANDS.sub("", text.translate(MINUS))
    marks = list(MARKED.finditer(plain))
    if marks and (found := AT_START.match(plain, marks[-1].end())):
        return Decimal(found[1])
    numbers = NUMBER.findall(plain)
    return Decimal(numbers[-1]) if numbers else None
