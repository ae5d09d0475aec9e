"""A text as words that may be edited and everything between them, which may not."""

from collections.abc import Sequence
from dataclasses import dataclass

import regex

from synthesis.protected import protected

FREE = regex.compile(r"[\p{L}\p{M}\u200c\u200d]+(?:['’-][\p{L}\p{M}\u200c\u200d]+)*")


CLOSERS = ",.;:!?)\n "


@dataclass(frozen=True, slots=True)
class Pieces:
    """The text is between[0] + words[0] + between[1] + words[1] + ... + between[-1]."""

    between: tuple[str, ...]
    words: tuple[str, ...]

    def with_words(self, words: Sequence[str | None]) -> str:
        """The text with other words in the same places; where one is None, it goes with one of the spaces around it."""
        text = self.between[0]
        for word, after in zip(words, self.between[1:], strict=True):
            if word is not None:
                text += word + after
            elif text.endswith(" ") and after[:1] in CLOSERS:  # also where nothing comes after
                text = text[:-1] + after
            else:
                text += after.removeprefix(" ") if text[-1:] in ("", "\n") else after
        return text


def pieces_of(text: str) -> Pieces:
    """`text` cut at the words that may be edited: letters, with hyphens and apostrophes inside, outside of protected
    spans."""
    between, words, end = [""], list[str](), 0
    for start, stop in [*protected(text), (len(text), len(text))]:
        for found in FREE.finditer(text, end, start):
            between[-1] += text[end : found.start()]
            words.append(found[0])
            between.append("")
            end = found.end()
        between[-1] += text[end:stop]
        end = stop
    return Pieces(tuple(between), tuple(words))
