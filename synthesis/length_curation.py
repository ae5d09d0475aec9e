"""Rows that teach to write as long as is asked for (Chen et al. 2024, "Minimum Tuning to Unlock Long Output", arXiv
2410.10210): one required length, and a reply that follows it."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np

from models.dialogue import Accepted, Dialogue, Emit, Rejected
from synthesis.exchange import last_exchange
from synthesis.fault import Fault
from synthesis.languages import words
from synthesis.length_wordings import UNITS, Unit
from synthesis.protocol import Needs, Seeds
from synthesis.required_length import LANGUAGES, Required, required_lengths
from synthesis.rows import EMIT_ROWS
from warehouse.cleaning.parameters import check_count, check_texts
from warehouse.cleaning.refusal import BEGINNING, IDENTITIES, REFUSALS
from warehouse.errors import InputError
from warehouse.records import Example

REFUSAL = re.compile("(?i)" + "|".join(REFUSALS))
IDENTITY = re.compile("(?i)" + "|".join(IDENTITIES))


@dataclass(frozen=True, slots=True)
class LongOutput:
    """Seeds whose instruction asks for exactly one length, and whose reply scores at least `least_score` for it.

    Only lengths in `units` and asked for in `languages` count. A page is `words_per_page` words and a word
    `tokens_per_word` tokens, both estimates. A kept reply has at least `min_words` words.
    """

    least_score: float = 80.0
    units: Sequence[str] = UNITS
    languages: Sequence[str] = LANGUAGES
    min_words: int = 0
    words_per_page: float = 500.0
    tokens_per_word: float = 4 / 3

    needs: ClassVar[Needs] = Needs(seeds=True)
    told: ClassVar[str] = ""
    reasons: ClassVar[frozenset[str]] = frozenset(
        {"no_exchange", "no_length", "several_lengths", "refusal", "empty_reply", "too_short", "off_length"}
    )

    def __post_init__(self) -> None:
        check_texts("units", self.units, UNITS)
        check_texts("languages", self.languages, LANGUAGES)
        check_count("min_words", self.min_words)
        if not (self.units and self.languages):
            raise InputError("long_output: units or languages is empty, so no row could be kept; name at least one")
        if not 0 <= self.least_score <= 100 or self.words_per_page <= 0 or self.tokens_per_word <= 0:
            raise InputError(
                f"long_output: least_score {self.least_score}, words_per_page {self.words_per_page}, tokens_per_word "
                f"{self.tokens_per_word}; expected a score from 0 to 100 and ratios above 0"
            )

    def __call__(self, seeds: Seeds, rng: np.random.Generator) -> Dialogue[None]:
        for start in range(0, len(seeds), EMIT_ROWS):
            yield [Emit(tuple(self._row(seed) for seed in seeds[start : start + EMIT_ROWS]))]

    def _row(self, seed: Example) -> Accepted | Rejected:
        found = self._judged(seed)
        return found.rejects(seed) if isinstance(found, Fault) else Accepted(found)

    def _judged(self, seed: Example) -> Example | Fault:
        exchange = last_exchange(seed)
        if exchange is None:
            return Fault("no_exchange")
        asked = [each for each in required_lengths(exchange.instruction, self.languages) if each.unit in self.units]
        if len(asked) != 1:
            return Fault("several_lengths", "; ".join(map(_shown, asked))) if asked else Fault("no_length")
        if refusal := REFUSAL.search(exchange.reply[:BEGINNING]) or IDENTITY.search(exchange.reply):
            return Fault("refusal", refusal[0])
        count = len(words(exchange.reply))
        if count == 0:
            return Fault("empty_reply")
        if count < self.min_words:
            return Fault("too_short", f"{count} words")
        [required] = asked
        length = self.length(exchange.reply, required.unit)
        score = length_score(length, required)
        if score < self.least_score:
            return Fault("off_length", f"{length:g} {required.unit} for {_shown(required)}: {score:.1f}")
        meta = {
            "parents": [seed.sample_id],
            "template": [],
            "required": asdict(required),
            "length": round(length, 2),
            "length_score": round(score, 2),
        }
        return Example(seed.messages, "long_output", meta)

    def length(self, text: str, unit: Unit) -> float:
        """How long `text` is, in `unit`."""
        if unit == "characters":
            return len(" ".join(text.split()))
        if unit == "paragraphs":
            return paragraphs(text)
        per_word = {"words": 1.0, "tokens": self.tokens_per_word, "pages": 1 / self.words_per_page}
        return len(words(text)) * per_word[unit]


def length_score(length: float, required: Required) -> float:
    """S_L of the paper for a length above 0, 0 to 100, higher is better; 80 at 1.6 and at 1/1.4 times what is required.

    100 · max(0, 1 - (y/x - 1)/3) above a required x, 100 · max(0, 1 - (x/y - 1)/2) below, here written so that the
    boundaries are exact. Within the limits of a range it is 100; outside, x is the limit that is missed.
    """
    if required.high is not None and length > required.high:
        return max(0.0, 100 * (4 * required.high - length) / (3 * required.high))
    if required.low is not None and length < required.low:
        return max(0.0, 100 * (3 * length - required.low) / (2 * length))
    return 100.0


def paragraphs(text: str) -> int:
    """Blocks between blank lines that are not headings alone; lines, where there is no blank line."""
    blocks = re.split(r"\n\s*\n", text.strip())
    blocks = blocks if len(blocks) > 1 else text.splitlines()
    return sum(1 for block in blocks if words(block) and not re.fullmatch(r"\s*#+ [^\n]*", block))


def _shown(required: Required) -> str:
    if required.low is not None and required.low == required.high:
        return f"{required.low:g} {required.unit}"
    low = "" if required.low is None else f"{required.low:g}"
    return f"{low}-{'' if required.high is None else f'{required.high:g}'} {required.unit}"
