"""Words, sentences and paragraphs of a reply, as the checks of instructions count them. Plain functions of text.

The sentence splitter is this project's own, so that nothing has to be downloaded: a sentence ends at ".", "!" or "?"
(or the full stops of Chinese, Japanese and Hindi), with closing quotes and brackets after it, where white space and
something other than a small letter follow. Abbreviations, initials and numbers in front of the dot do not end one. A
list item, a heading and a blank line end one too, where they hold a letter or a digit.
"""

import re

ABBREVIATIONS = re.compile(
    r"mrs?|ms|dr|prof|[sj]r|st|mt|rev|hon|capt|col|gen|lt|sgt|vs|etc|inc|ltd|co|corp|dept|est|figs?|nos?|vol|eds?|pp"
    r"|approx|appt|apt|ave|blvd|rd|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|i\.e|e\.g|cf|al|u\.s|u\.k|[ap]\.m|ph\.d"
    r"|p\.s|p\.p\.s"
)
END = re.compile(r"(?:[.!?…]+[\"'”’)\]*_]*(?=\s+|$))|(?:[。！？।]+[」』”’)\]]*)")
WORD = re.compile(r"\w+")
BLOCK = re.compile(r"\n\s*\n|\n(?=\s*(?:[*+•-]|\d+[.)]|#+)\s)")
HEADING = re.compile(r"^(\s*#+\s.*)$", re.MULTILINE)
BEFORE = re.compile(r"([\w.]+)\.[\"'”’)\]*_]*$")


def words(text: str) -> list[str]:
    """Runs of letters, digits and underscores: "don't" is two."""
    return WORD.findall(text)


def tokens(text: str) -> list[str]:
    """Words as a reader counts them: hyphens and apostrophes inside a word do not part it."""
    return re.findall(r"\w+(?:[-'’.]\w+)*", text)


def sentences(text: str) -> list[str]:
    """The sentences of `text`, without white space around them; what holds no letter or digit is none."""
    parted = HEADING.sub(r"\1\n", text)
    found = [sentence for block in BLOCK.split(parted) for sentence in _of_block(block)]
    return [sentence for sentence in found if WORD.search(sentence)]


def _of_block(block: str) -> list[str]:
    found, start = [], 0
    for match in END.finditer(block):
        if _ends(block[start : match.end()], block[match.end() :]):
            found.append(block[start : match.end()].strip())
            start = match.end()
    return [*found, block[start:].strip()]


def _ends(before: str, after: str) -> bool:
    """Whether a sentence ends between these two texts, the first of which ends with its mark."""
    following = after.lstrip()[:1]
    if following.islower():
        return False
    last = BEFORE.search(before)
    if last is None or not following:
        return True
    word = last[1].casefold()
    initial = len(word) == 1 and word.isalpha() and word != "i"
    listed = word.isdigit() and before.strip().rstrip(".") == last[1]  # "1. Wash", not "in 1990. Then"
    return not (initial or listed or ABBREVIATIONS.fullmatch(word))
