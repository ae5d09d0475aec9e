"""Spans of a text that no edit or no translation may touch: code, addresses, numbers, placeholders, options, names."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

TAG = re.compile(r"⟦\s*(\d+)\s*⟧")
PATTERNS = {
    "tag": r"⟦\s*\d+\s*⟧",
    "fence": r"(?s:```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z))",
    "code": r"`[^`\n]+`",
    "math": r"\$\$[^$]+\$\$|\$[^$\n]*[\\^_=<>][^$\n]*\$|\\\([^\n]+?\\\)|\\\[[^\n]+?\\\]",
    "url": r"(?:https?|ftp)://[^\s<>\"'”»)]+|\bwww\.[^\s<>\"'”»)]+",
    "email": r"(?<![\w.+-])[\w.+-]+@[\w-]+\.[\w.-]*\w",
    "placeholder": r"\{\{[^{}\n]*\}\}|\{[^{}\n]*\}|<[^<>\n]{1,60}>|\[[A-Z][A-Z0-9_ ]*\]|%\(\w+\)[sd]",
    "quote": r"\"[^\"\n]+\"|“[^”\n]+”|«[^»\n]+»|(?<!\w)'[^'\n]+'(?!\w)|(?<!\w)‘[^’\n]+’(?!\w)",
    "input": r"(?<=\S)[ \t]*\n[ \t]*\n(?s:.*)",  # what stands behind a blank line
    "label": r"(?m:^[ \t]*[A-Z][\w ]{0,30}:)",
    "option": r"(?m:^[ \t]*(?:\(?\w{1,2}[.)]|[-*•])[ \t][^\n]*)|\([A-Za-z]\)",
    "name": r"(?<=[\w,;] )[A-Z][\w'’-]*",
    "number": r"(?:(?<!\w)|(?<=_))[-+−]?[$€£¥]?\w*\d(?:[\w.,:/°-]*\w)?[%°]?",
    "format": r"(?i:\b(?:JSON|XML|YAML|CSV|TSV|HTML|CSS|Markdown|LaTeX|SQL|regex|Python|bullets?|bulleted|numbered"
    r"|tables?|lists?|columns?|rows?|lines?|sentences?|paragraphs?|words?|characters?|letters?|commas?|tokens?|pages?"
    r"|true|false)\b)",
    "negation": r"(?i:\b(?:no|not|nor|none|never|neither|nothing|nobody|without|except|unless|only|cannot)\b"
    r"|\b\w+n['’]t\b)",
    "quantity": r"(?i:\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozen|twenty|hundred|thousand"
    r"|million|half|third|quarter|once|twice|double|triple|times|each|every|all|more|less|fewer|least|most|than)\b)",
}  # fmt: skip  # in this order where two begin at one place
TO_KEEP = tuple(PATTERNS)
"""Kinds that a random edit leaves alone."""

TO_CARRY_OVER = ("tag", "fence", "code", "math", "url", "email", "placeholder", "number")
"""Kinds that are the same in every language."""

TO_REPEAT = (*TO_CARRY_OVER, "quote", "option", "input")
"""Kinds that are the same in other words of the same language."""


@dataclass(frozen=True, slots=True)
class Masked:
    """A text with a tag `⟦0⟧`, `⟦1⟧`, ... in the place of each protected span, and the spans in this order."""

    text: str
    spans: tuple[str, ...]

    def restored(self, text: str) -> str | None:
        """`text` with the spans back in; None unless it has each tag exactly once."""
        if sorted(int(number) for number in TAG.findall(text)) != list(range(len(self.spans))):
            return None
        return TAG.sub(lambda found: self.spans[int(found[1])], text)


def mask(text: str, kinds: Sequence[str] = TO_CARRY_OVER) -> Masked:
    """`text` with tags for what must come out of a translation as it went in."""
    pieces, spans, end = list[str](), list[str](), 0
    for start, stop in protected(text, kinds):
        pieces += [text[end:start], f"⟦{len(spans)}⟧"]
        spans.append(text[start:stop])
        end = stop
    return Masked("".join([*pieces, text[end:]]), tuple(spans))


def without_protected(text: str, kinds: Sequence[str] = TO_CARRY_OVER) -> str:
    """The prose of `text`: a space in the place of each protected span."""
    return re.sub(TAG, " ", mask(text, kinds).text)


def protected(text: str, kinds: Sequence[str] = TO_KEEP) -> Iterator[tuple[int, int]]:
    """Start and end of each span of one of `kinds`, in order and without overlaps."""
    return (found.span() for found in _compiled(tuple(kinds)).finditer(text) if found[0])


@cache
def _compiled(kinds: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{PATTERNS[kind]})" for kind in kinds))
