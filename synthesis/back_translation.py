"""Back-translation: an instruction through another language and back, kept where it says the same in other words."""

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from models.dialogue import Accepted, Dialogue, Embed, Emit, each
from synthesis.closeness import chrf
from synthesis.exchange import Exchange, last_exchange
from synthesis.fault import Fault
from synthesis.languages import language_name
from synthesis.protected import TO_REPEAT
from synthesis.protocol import Needs, Seeds
from synthesis.translation import FAULTS, TRANSLATE, TRANSLATOR, AskedTranslator
from warehouse.cleaning.parameters import check_count, check_switch
from warehouse.errors import InputError
from warehouse.records import Example

ENCODER = "encoder"
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
NAME = re.compile(r"(?<=[\w,;] )[A-Z][\w'’-]*[a-z][\w'’-]*|\b[A-Z]{2,}\b")


@dataclass(frozen=True, slots=True)
class BackTranslation:
    """The last instruction of each seed in other words, with the seed's own reply; what stands behind its first blank
    line, and its options, stay as they are.

    It is translated to `pivot` and back by the model in role "translator". It is kept where its chrF to the original
    lies in [`least_chrf`, `most_chrf`], its numbers are the same, its names too (`same_names`; capital letters inside a
    sentence, so turn it off for a `language` that writes all nouns with one), and the cosine of the two embeddings of
    role "encoder" is at least `least_cosine`.
    """

    pivot: str
    language: str = "en"
    least_chrf: float = 30.0
    most_chrf: float = 95.0
    least_cosine: float = 0.85
    same_names: bool = True
    max_tokens: int = 1024

    needs: ClassVar[Needs] = Needs(models=(TRANSLATOR,), encoders=(ENCODER,), seeds=True)
    told: ClassVar[str] = TRANSLATE.key
    reasons: ClassVar[frozenset[str]] = FAULTS | {
        "no_exchange", "too_far", "too_close", "numbers_changed", "names_changed", "meaning_changed",
    }  # fmt: skip

    def __post_init__(self) -> None:
        check_count("max_tokens", self.max_tokens, 1)
        check_switch("same_names", self.same_names)
        language_name(self.language), language_name(self.pivot)
        if self.language == self.pivot:
            raise InputError(f"back_translation: pivot and language are both {self.pivot!r}; name another pivot")
        if not 0 <= self.least_chrf <= self.most_chrf <= 100 or not -1 <= self.least_cosine <= 1:
            raise InputError(
                f"back_translation: least_chrf {self.least_chrf}, most_chrf {self.most_chrf}, least_cosine "
                f"{self.least_cosine}; expected 0 <= least_chrf <= most_chrf <= 100 and a cosine from -1 to 1"
            )

    def __call__(self, seeds: Seeds, rng: np.random.Generator) -> Dialogue[None]:
        yield from each(seeds, self._seed)

    def _seed(self, seed: Example) -> Dialogue[None]:
        exchange = last_exchange(seed)
        if exchange is None:
            yield [Emit((Fault("no_exchange").rejects(seed),))]
            return
        found = yield from self._again(exchange.instruction)
        row = found.rejects(seed) if isinstance(found, Fault) else Accepted(self._row(seed, exchange, *found))
        yield [Emit((row,))]

    def _again(self, text: str) -> Dialogue[tuple[str, float, float] | Fault]:
        """`text` in other words, its chrF and its cosine to `text`, or why it is not kept."""
        translate = AskedTranslator(TRANSLATOR, self.max_tokens, TO_REPEAT)
        there = yield from translate(text, self.language, self.pivot)
        back = there if isinstance(there, Fault) else (yield from translate(there, self.pivot, self.language))
        if isinstance(back, Fault):
            return back
        close = chrf(back, text)
        if fault := self._unlike(text, back, close):
            return fault
        a, b = yield [Embed(ENCODER, text), Embed(ENCODER, back)]
        cosine = float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))
        if cosine < self.least_cosine:
            return Fault("meaning_changed", f"cosine {cosine:.3f}")
        return back, close, cosine

    def _unlike(self, text: str, back: str, close: float) -> Fault | None:
        if close < self.least_chrf:
            return Fault("too_far", f"chrF {close:.1f}")
        if close > self.most_chrf:
            return Fault("too_close", f"chrF {close:.1f}")
        if (before := numbers(text)) != (after := numbers(back)):
            return Fault("numbers_changed", f"{', '.join(sorted(before))} to {', '.join(sorted(after))}")
        if self.same_names and (before := names(text)) != (after := names(back)):
            return Fault("names_changed", f"{', '.join(sorted(before))} to {', '.join(sorted(after))}")
        return None

    def _row(self, seed: Example, exchange: Exchange, text: str, close: float, cosine: float) -> Example:
        meta = {
            "parents": [seed.sample_id],
            "template": [TRANSLATE.key],
            "aug_parent": seed.sample_id,
            "technique": "back_translation",
            "pivot": self.pivot,
            "chrf": round(close, 3),
            "cosine": round(cosine, 4),
        }
        return Example(exchange.asked_as(text), "back_translation", meta)


def numbers(text: str) -> frozenset[str]:
    """The numbers in `text`, as they are written."""
    return frozenset(NUMBER.findall(text))


def names(text: str) -> frozenset[str]:
    """The words in `text` that look like names: a capital inside a sentence, or capitals alone."""
    return frozenset(NAME.findall(text))
