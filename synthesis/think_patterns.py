"""One instruction and one response with five different thoughts between them (after ThinkPatterns-21k,
arXiv 2503.12918), so that the forms of thought can be compared and all else is equal."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from models.dialogue import Accepted, Complete, Dialogue, Emit, Rejected, each
from models.protocol import Completion, Prompt
from models.telling import telling
from models.verify.reference import question_of
from synthesis.attempts import (
    FAILED_JUDGE,
    JUDGE_TOKENS,
    LOST,
    NO_QUESTION,
    NO_REPLY,
    TEMPLATES,
    answered,
    gold_of,
    streams,
)
from synthesis.drawing import check_drawing
from synthesis.fault import Fault, ask
from synthesis.languages import NAMES, in_other_language, language_of, words
from synthesis.outcomes import outcome
from synthesis.protocol import Needs, Seeds
from synthesis.skill import Rng, between
from synthesis.tally import text_of
from synthesis.thought_forms import FORMS, PATTERNS
from warehouse.cleaning.parameters import check_count, check_share, check_switch, check_texts
from warehouse.errors import InputError
from warehouse.records import Example, Message, canonical, digest

SOURCE = "think_patterns"
GENERATOR, JUDGE = "generator", "judge"
THINK = telling(TEMPLATES, "think_patterns.v1")
FITS = telling(TEMPLATES, "think_patterns_judge.v1")
GRAM = 6
SHORT = 40  # words: the longest thought about a shorter response is that about one of so many
TAG = re.compile(r"</?think(?:ing)?>", re.IGNORECASE)
META_TALK = re.compile(
    r"\b(?:(?:given|provided|supplied|target|settled|reference)\s+(?:response|reply|answer)(?!\s+(?:choices|options))"
    r"|final\s+(?:response|reply)|(?:response|reply|answer)\s+(?:that\s+)?(?:is|was)\s+(?:given|provided|supplied|settled)"
    r"|the\s+response\s+(?:says|states|mentions|lists|explains|gives)|(?:was|am|were)\s+(?:told|asked)\s+to\s+think"
    r"|(?:begin|end)\s+response)\b",
    re.IGNORECASE,
)
YES_OR_NO = re.compile(r"[\s\"'*`]*(yes|no)[\s\"'*`.!]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Thought:
    """A thought of one pattern, the key of the reply that it is, and why it is not kept, if it is not."""

    pattern: str
    text: str
    reply: str
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class ThinkPatterns:
    """For each seed a row per pattern: its question, and a thought in `<think>` tags before its reply.

    patterns       which thoughts are written, by the model in role "generator": see `thought_forms.FORMS`
    complete       whether a seed's rows are kept only where all of its patterns are
    most_overlap   the share of the reply's word 6-grams that the thought has, from which it is a copy
    least_ratio, most_ratio  words of the thought over words of the reply; about a reply of fewer than 40 words a
                   thought may be as long as about one of 40
    judge          whether the model in role "judge" says that the last step of the thought fits the reply
    max_tokens, temperature, top_p  how thoughts are drawn
    """

    reasons: ClassVar[frozenset[str]] = LOST | FAILED_JUDGE | {
        NO_QUESTION, NO_REPLY, "thinks_already", "tag_in_thought", "wrong_form", "meta_talk", "copies_response",
        "too_short_thought", "too_long_thought", "other_language", "does_not_fit", "judge_unclear",
        "incomplete_quintuple",
    }  # fmt: skip

    patterns: Sequence[str] = PATTERNS
    complete: bool = True
    most_overlap: float = 0.5
    least_ratio: float = 0.3
    most_ratio: float = 6.0
    judge: bool = False
    max_tokens: int = 2048
    temperature: float = 0.7
    top_p: float = 0.95

    def __post_init__(self) -> None:
        check_texts("patterns", self.patterns, PATTERNS)
        if not self.patterns or len(set(self.patterns)) != len(self.patterns):
            raise InputError(f"patterns is {list(self.patterns)}; give some of {', '.join(PATTERNS)}, each once")
        check_switch("complete", self.complete)
        check_switch("judge", self.judge)
        check_share("most_overlap", self.most_overlap)
        check_drawing(self.temperature, self.top_p)
        check_count("max_tokens", self.max_tokens, 1)
        if not 0 <= self.least_ratio < self.most_ratio:
            raise InputError(
                f"least_ratio is {self.least_ratio} and most_ratio {self.most_ratio}; expected 0 <= least < most"
            )

    @property
    def needs(self) -> Needs:
        return Needs(models=(GENERATOR, JUDGE) if self.judge else (GENERATOR,), seeds=True)

    @property
    def templates(self) -> list[str]:
        return [THINK.key, *([FITS.key] if self.judge else [])]

    @property
    def told(self) -> str:
        return digest(canonical([self.templates, {name: form.told for name, form in FORMS.items()}]))

    def __call__(self, seeds: Seeds, rng: np.random.Generator) -> Dialogue[None]:
        yield from each(zip(seeds, streams(seeds, rng), strict=True), lambda pair: self._seed(*pair))

    def _seed(self, seed: Example, rng: Rng) -> Dialogue[None]:
        if reason := unfit(seed):
            meta = {"parents": [seed.sample_id], "template": self.templates}
            yield [Emit((Rejected(reason, example=Example(seed.messages, SOURCE, meta)),))]
            return
        language = language_of(gold_of(seed))
        number = between(rng, 0, 2**31 - 1)
        asked = [self._prompt(seed, pattern, language, number) for pattern in self.patterns]
        replies: list[Completion] = yield [Complete(GENERATOR, prompt) for prompt in asked]
        thoughts = list[Thought]()
        for pattern, reply in zip(self.patterns, replies, strict=True):
            thoughts.append((yield from self._thought(seed, pattern, reply, language)))
        yield [Emit(tuple(self._rows(seed, thoughts)))]

    def _prompt(self, seed: Example, pattern: str, language: str, number: int) -> Prompt:
        text = THINK(
            form=FORMS[pattern].told,
            labels=pattern != "monologue",
            language=NAMES.get(language, "the language of the response"),
            instruction=instruction_of(seed),
            response=gold_of(seed).strip(),
        )
        return Prompt((Message("user", text),), self.max_tokens, self.temperature, self.top_p, seed=number)

    def _thought(self, seed: Example, pattern: str, reply: Completion, language: str) -> Dialogue[Thought]:
        text = text_of(reply)
        if isinstance(text, Fault):
            return Thought(pattern, "", reply.key, text)
        fault = self.fault_of(text, pattern, gold_of(seed), language)
        if fault is None and self.judge:
            fault = yield from _fit(seed, text)
        return Thought(pattern, text, reply.key, fault)

    def fault_of(self, thought: str, pattern: str, response: str, language: str) -> Fault | None:
        """Why a thought is not kept, whatever a judge would say; `language` is the response's."""
        if found := TAG.search(thought):
            return Fault("tag_in_thought", found[0])
        if lacks := FORMS[pattern].lacks(thought):
            return Fault("wrong_form", lacks)
        if found := META_TALK.search(thought):
            return Fault("meta_talk", found[0])
        if (share := overlap(thought, response)) >= self.most_overlap:
            return Fault("copies_response", f"{share:.2f} of its {GRAM}-grams")
        count, of = len(words(thought)), len(words(response))
        if count < self.least_ratio * of:
            return Fault("too_short_thought", f"{count} words for {of}")
        if count > self.most_ratio * max(of, SHORT):
            return Fault("too_long_thought", f"{count} words for {of}")
        other = in_other_language(thought, language) if language in NAMES else None
        return Fault("other_language", f"{other}, not {language}") if other else None

    def _rows(self, seed: Example, thoughts: Sequence[Thought]) -> list[Accepted | Rejected]:
        """A row for each thought, in the order of the patterns."""
        failed = [thought.pattern for thought in thoughts if thought.fault]
        rows = list[Accepted | Rejected]()
        for thought in thoughts:
            row = self._row(seed, thought)
            left_out = (
                Fault("incomplete_quintuple", f"without {', '.join(failed)}") if failed and self.complete else None
            )
            rows.append(outcome(row, thought.fault or left_out))
        return rows

    def _row(self, seed: Example, thought: Thought) -> Example:
        meta: dict[str, Any] = {
            "parents": [seed.sample_id],
            "template": self.templates,
            "pattern": thought.pattern,
            "reply": thought.reply,
            "thought": thought.text,
            "response": gold_of(seed).strip(),
            "thought_words": len(words(thought.text)),
            "overlap": round(overlap(thought.text, gold_of(seed)), 4),
        }
        return Example(answered(question_of(seed), rendered(thought.text, gold_of(seed))), SOURCE, meta)


def _fit(seed: Example, thought: str) -> Dialogue[Fault | None]:
    """Why the judge does not let a thought pass; None where it does."""
    told = FITS(instruction=instruction_of(seed), thought=thought, response=gold_of(seed).strip())
    said = yield from ask(JUDGE, Prompt((Message("user", told),), JUDGE_TOKENS))
    if isinstance(said, Fault):
        return Fault(f"judge_{said.reason}", said.detail)
    found = YES_OR_NO.fullmatch(said)
    if found is None:
        return Fault("judge_unclear", said[:80])
    return None if found[1].lower() == "yes" else Fault("does_not_fit")


def unfit(seed: Example) -> str:
    """Why no thought can be written for a seed; "" where one can."""
    if not any(turn.content.strip() for turn in question_of(seed) if turn.role == "user"):
        return NO_QUESTION
    if not gold_of(seed).strip():
        return NO_REPLY
    return "thinks_already" if TAG.search(gold_of(seed)) else ""


def instruction_of(seed: Example) -> str:
    """The turns before the reply as one text; a single turn stands without its role."""
    turns = question_of(seed)
    if len(turns) == 1:
        return turns[0].content.strip()
    return "\n\n".join(f"{turn.role}: {turn.content.strip()}" for turn in turns)


def rendered(thought: str, response: str) -> str:
    """A reply as it is trained on: thought and response."""
    return f"<think>{thought}</think>\n{response.strip()}"


def overlap(thought: str, response: str, n: int = GRAM) -> float:
    """The share of the different word n-grams of `response` that `thought` has; 0 for a response of fewer words."""
    told, said = (_grams(words(text.casefold()), n) for text in (response, thought))
    return len(told & said) / len(told) if told else 0.0


def _grams(tokens: Sequence[str], n: int) -> set[tuple[str, ...]]:
    return {tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)}
