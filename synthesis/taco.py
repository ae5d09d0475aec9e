"""TaCo, translation-assisted chain of thought (Upadhayay and Behzadan 2023): a question in another language that is
answered by way of English."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from models.dialogue import Accepted, Dialogue, Emit, each
from models.taco import TacoReply, labels, read_taco, write_taco
from synthesis.closeness import chrf
from synthesis.fault import Fault
from synthesis.languages import CJK, in_other_language, language_name
from synthesis.protected import without_protected
from synthesis.protocol import Needs, Seeds
from synthesis.translation import FAULTS, TRANSLATE, TRANSLATOR, AskedTranslator
from warehouse.cleaning.parameters import check_count, check_switch
from warehouse.errors import InputError
from warehouse.records import Example, Message

OnWordplay = Literal["reject", "flag"]
SHORT = 20  # signs; the ratio of shorter texts says nothing ("Yes" and "Naam")
WIDE = re.compile(rf"[{CJK}\uac00-\ud7a3]")
WORDPLAY = re.compile(
    r"(?i)\b(?:spell(?:s|ed|ing|t)?|misspell\w*|rhym\w+|anagrams?|palindromes?|puns?|acronyms?|acrostics?|syllables?"
    r"|vowels?|consonants?|alphabet(?:ical(?:ly)?)?|alliterat\w+|homophones?|homonyms?|tongue[- ]twisters?|limericks?"
    r"|scrabble|crossword|capitali[sz]e|uppercase|lowercase|(?:letter|word)s? (?:in|of) the (?:word|name)"
    r"|(?:start|begin|end)(?:s|ing)? with (?:the )?(?:letter|a vowel)|past tense|plural of|grammar|grammatical\w*)\b"
)


@dataclass(frozen=True, slots=True)
class Taco:
    """Rows whose prompt is the seed's question in `language`, and whose reply has three labelled parts.

    Question and reply of each English seed are translated by the model in role "translator", and back again
    (`round_trip`): a chrF to the original below `least_chrf` rejects the row, and the score goes with it. Code,
    numbers, addresses and placeholders come through unchanged. Lengths may differ by `least_ratio` to `most_ratio`, a
    Chinese, Japanese or Korean character counted as two. `wordplay` says what becomes of questions about English words.
    """

    language: str
    least_chrf: float = 50.0
    least_ratio: float = 0.4
    most_ratio: float = 2.5
    round_trip: bool = True
    wordplay: OnWordplay = "reject"
    max_tokens: int = 2048

    needs: ClassVar[Needs] = Needs(models=(TRANSLATOR,), seeds=True)
    told: ClassVar[str] = TRANSLATE.key
    reasons: ClassVar[frozenset[str]] = FAULTS | {
        "not_one_exchange", "not_english", "wordplay", "label_in_text", "length_ratio", "round_trip",
    }  # fmt: skip

    def __post_init__(self) -> None:
        check_count("max_tokens", self.max_tokens, 1)
        check_switch("round_trip", self.round_trip)
        if language_name(self.language) == language_name("en"):
            raise InputError("taco: language is 'en'; the rows are made from English ones, name the language to teach")
        if self.wordplay not in get_args(OnWordplay):
            raise InputError(f"taco: wordplay is {self.wordplay!r}; known: {', '.join(get_args(OnWordplay))}")
        if not 0 <= self.least_chrf <= 100 or not 0 <= self.least_ratio < self.most_ratio:
            raise InputError(
                f"taco: least_chrf {self.least_chrf}, least_ratio {self.least_ratio}, most_ratio {self.most_ratio}; "
                "expected a score from 0 to 100 and 0 <= least_ratio < most_ratio"
            )

    def __call__(self, seeds: Seeds, rng: np.random.Generator) -> Dialogue[None]:
        yield from each(seeds, self._seed)

    def _seed(self, seed: Example) -> Dialogue[None]:
        found = self._unfit(seed) or (yield from self._row(seed))
        yield [Emit((found.rejects(seed) if isinstance(found, Fault) else Accepted(found),))]

    def _unfit(self, seed: Example) -> Fault | None:
        """Why no row can be made of a seed, before anything is asked."""
        roles = [turn.role for turn in seed.messages]
        if roles != ["user", "assistant"] or not all(turn.content.strip() for turn in seed.messages):
            return Fault("not_one_exchange", ", ".join(roles))
        question, reply = (turn.content for turn in seed.messages)
        if other := in_other_language(question, "en"):
            return Fault("not_english", other)
        if self.wordplay == "reject" and (found := WORDPLAY.search(question)):
            return Fault("wordplay", found[0])
        whole = write_taco(TacoReply(question, reply, reply), language_name(self.language))
        if isinstance(failure := read_taco(whole, language_name(self.language)), str):
            return Fault("label_in_text", failure)
        return None

    def _row(self, seed: Example) -> Dialogue[Example | Fault]:
        question, reply = (turn.content.strip() for turn in seed.messages)
        scores = dict[str, float]()
        translated = list[str]()
        for part, text in (("instruction", question), ("response", reply)):
            found = yield from self._translated(part, text, scores)
            if isinstance(found, Fault):
                return found
            translated.append(found)
        language = language_name(self.language)
        target = write_taco(TacoReply(question, reply, translated[1]), language)
        if isinstance(failure := read_taco(target, language), str):
            return Fault("label_in_text", f"{failure} in the translation; labels: {', '.join(labels(language))}")
        meta = self._meta(seed, question, scores)
        return Example((Message("user", translated[0]), Message("assistant", target)), "taco", meta)

    def _translated(self, part: str, text: str, scores: dict[str, float]) -> Dialogue[str | Fault]:
        """`text` in the language to teach, and its round-trip score into `scores`; or why it cannot be used."""
        translate = AskedTranslator(TRANSLATOR, self.max_tokens)
        there = yield from translate(text, "en", self.language)
        if isinstance(there, Fault):
            return Fault(there.reason, f"{part}: {there.detail}")
        ratio = length_ratio(there, text)
        if ratio is not None and not self.least_ratio <= ratio <= self.most_ratio:
            return Fault("length_ratio", f"{part}: {ratio:.2f}")
        if not self.round_trip:
            return there
        back = yield from translate(there, self.language, "en")
        if isinstance(back, Fault):
            return Fault(back.reason, f"{part}, on the way back: {back.detail}")
        scores[part] = round(chrf(back, text), 3)
        return there if scores[part] >= self.least_chrf else Fault("round_trip", f"{part}: chrF {scores[part]}")

    def _meta(self, seed: Example, question: str, scores: Mapping[str, float]) -> dict[str, Any]:
        return {
            "parents": [seed.sample_id],
            "template": [TRANSLATE.key],
            "language": self.language,
            "round_trip": min(scores.values(), default=None),
            "round_trip_of": dict(scores),
            "wordplay": bool(WORDPLAY.search(question)),
        }


def length_ratio(text: str, original: str) -> float | None:
    """Length of the prose of `text` over that of `original`; None where either is too short to compare."""
    lengths = [_length(without_protected(each)) for each in (text, original)]
    return lengths[0] / lengths[1] if min(lengths) > 0 and max(lengths) >= SHORT else None


def _length(text: str) -> int:
    return len("".join(text.split())) + len(WIDE.findall(text))
