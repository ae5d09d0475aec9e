"""Questions about passages, by summarizing first (SAP, the method of SWIM-IR: Thakur et al. 2024, arXiv 2311.05800).

The model first copies what is worth asking about, then asks, in the language of the passage or in another one.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from models.dialogue import Accepted, Dialogue, Emit, each
from models.protocol import Prompt
from models.telling import Telling, telling
from synthesis.attempts import LOST, TEMPLATES
from synthesis.closeness import coverage, rouge_l
from synthesis.fault import Fault, ask
from synthesis.files import content_of
from synthesis.languages import in_other_language, language_name, words
from synthesis.passages import Passage, Side, Unread, documents, passages_of, sampled
from synthesis.protocol import Needs, Seeds
from synthesis.sap_exemplars import Exemplar, default_exemplars
from warehouse.cleaning.parameters import check_count, check_share, check_switch
from warehouse.errors import InputError
from warehouse.records import Example, Message, canonical, digest

Mode = Literal["sap", "direct"]
TELLINGS: Mapping[Mode, Telling] = {"sap": telling(TEMPLATES, "sap.v1"), "direct": telling(TEMPLATES, "ask.v1")}
ANSWER = telling(TEMPLATES, "answer_from_passage.v1")
GENERATOR = "generator"
UNANSWERABLE = "UNANSWERABLE"
LABEL = r"^[ \t*#]*{name}[ \t*]*[:：][ \t*]*"
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
QUESTION_MARK = re.compile(r"[?？؟;՞፧]")


@dataclass(frozen=True, slots=True)
class AskFromPassage:
    """One question per passage, in `language`; the reply is the passage, or with `answer` what a model answers from it.

    Passages are the last replies (or prompts: `passage`) of the seeds, or `column` of the files at `documents`; of
    these about `sample` are drawn. `mode` "direct" asks without a summary. `exemplars` (passage, summary, question)
    replace those that come along for English passages. All roles are "generator".
    """

    mode: Mode = "sap"
    language: str = "en"
    passage_language: str = "en"
    exemplars: Sequence[Mapping[str, str]] = ()
    passage: Side = "reply"
    documents: str = ""
    column: str = "text"
    title_column: str = "title"
    sample: int | None = None
    answer: bool = False
    most_tokens: int = 40
    least_coverage: float = 0.6
    most_overlap: float = 0.7
    max_tokens: int = 512

    reasons: ClassVar[frozenset[str]] = LOST | {
        "no_passage", "unreadable_row", "passage_too_short", "not_sampled", "missing_summary", "missing_question",
        "question_too_long", "other_language", "not_extractive", "near_copy", "unanswerable",
    }  # fmt: skip

    def __post_init__(self) -> None:
        check_count("sample", self.sample, 1)
        check_count("most_tokens", self.most_tokens, 1)
        check_count("max_tokens", self.max_tokens, 1)
        check_share("least_coverage", self.least_coverage)
        check_share("most_overlap", self.most_overlap)
        check_switch("answer", self.answer)
        _check_choice("mode", self.mode, get_args(Mode))
        _check_choice("passage", self.passage, get_args(Side))
        language_name(self.language), language_name(self.passage_language)
        _ = self.shown

    @property
    def needs(self) -> Needs:
        return Needs(models=(GENERATOR,), seeds=not self.documents)

    @property
    def shown(self) -> tuple[Exemplar, ...]:
        if not self.exemplars:
            return default_exemplars(self.language, self.passage_language)
        fields = ("passage", "summary", "question")
        for given in self.exemplars:
            if set(given) != set(fields):
                raise InputError(f"an exemplar has {', '.join(given)}; it needs {', '.join(fields)}, and nothing else")
        return tuple(Exemplar(**given) for given in self.exemplars)

    @property
    def templates(self) -> list[str]:
        return [TELLINGS[self.mode].key, *([ANSWER.key] if self.answer else [])]

    @property
    def told(self) -> str:
        """Changes with the templates, the exemplars and the documents, whose path says nothing of what is in them."""
        shown = [asdict(exemplar) for exemplar in self.shown]
        return digest(canonical([self.templates, shown, content_of(self.documents) if self.documents else ""]))

    def __call__(self, seeds: Seeds, rng: np.random.Generator) -> Dialogue[None]:
        found: Iterable[Passage | Unread] = passages_of(seeds, self.passage)
        if self.documents:
            found = documents(self.documents, self.column, self.title_column)
        if self.sample is not None:
            found = sampled(found, self.sample, rng)
        yield from each(found, self._passage)

    def _passage(self, found: Passage | Unread) -> Dialogue[None]:
        made = found.fault if isinstance(found, Unread) else (yield from self._row(found))
        yield [Emit((made.rejects(found.seed) if isinstance(made, Fault) else Accepted(made),))]

    def _row(self, passage: Passage) -> Dialogue[Example | Fault]:
        told = TELLINGS[self.mode](
            language=language_name(self.language),
            passage_language=language_name(self.passage_language),
            exemplars=self.shown,
            passage=passage.text,
        )
        reply = yield from ask(GENERATOR, self._prompt(told, ("\nPassage:",)))
        asked = reply if isinstance(reply, Fault) else read_asked(reply, self.mode)
        if isinstance(asked, Fault):
            return asked
        if fault := self._fault(asked, passage):
            return fault
        answer = (yield from self._answer(asked.question, passage)) if self.answer else passage.text
        return answer if isinstance(answer, Fault) else self._example(asked, passage, answer)

    def _prompt(self, told: str, stop: tuple[str, ...] = ()) -> Prompt:
        return Prompt((Message("user", told),), max_tokens=self.max_tokens, stop=stop)

    def _fault(self, asked: "Asked", passage: Passage) -> Fault | None:
        """What is wrong with what was asked, or None."""
        question = words(asked.question.casefold())
        if len(question) > self.most_tokens:
            return Fault("question_too_long", f"{len(question)} words")
        if other := in_other_language(asked.question, self.language):
            return Fault("other_language", f"{other}, not {self.language}: {asked.question}")
        if self.mode == "sap" and (covered := copied(asked.summary, passage.text)) < self.least_coverage:
            return Fault("not_extractive", f"{covered:.2f} of the summary is from the passage")
        if (overlap := overlap_with_sentences(asked.question, passage.text)) > self.most_overlap:
            return Fault("near_copy", f"ROUGE-L {overlap:.2f}: {asked.question}")
        return None

    def _answer(self, question: str, passage: Passage) -> Dialogue[str | Fault]:
        told = ANSWER(language=language_name(self.language), passage=passage.text, question=question)
        reply = yield from ask(GENERATOR, self._prompt(told))
        if isinstance(reply, Fault):
            return reply
        if UNANSWERABLE in reply:
            return Fault("unanswerable", question)
        other = in_other_language(reply, self.language)
        return reply if other is None else Fault("other_language", f"the answer is {other}, not {self.language}")

    def _example(self, asked: "Asked", passage: Passage, answer: str) -> Example:
        meta: dict[str, Any] = {
            "parents": [passage.seed.sample_id] if passage.seed else [],
            "template": self.templates,
            "mode": self.mode,
            "language": self.language,
            "passage_language": self.passage_language,
            "title": passage.title,
            "place": passage.place,
            "summary": asked.summary,
            "summary_coverage": round(copied(asked.summary, passage.text), 4) if asked.summary else None,
            "question_mark": bool(QUESTION_MARK.search(asked.question)),
        }
        if passage.licence:
            meta["licence"] = passage.licence
        return Example((Message("user", asked.question), Message("assistant", answer)), "sap", meta)


@dataclass(frozen=True, slots=True)
class Asked:
    """`summary` is "" where none was asked for."""

    question: str
    summary: str = ""


def read_asked(reply: str, mode: Mode) -> Asked | Fault:
    """The sections of a reply; the question is one line."""
    question = re.search(LABEL.format(name="Question") + r"(\S.*)$", reply, re.MULTILINE | re.IGNORECASE)
    before = reply[: question.start()] if question else reply
    summary = re.search(LABEL.format(name="Summary") + r"(\S.*)\Z", before, re.MULTILINE | re.IGNORECASE | re.DOTALL)
    asked, summed = (found[1].strip(" \t\n*") if found else "" for found in (question, summary))
    if mode == "sap" and not summed:
        return Fault("missing_summary", reply[:80])
    if not asked:
        return Fault("missing_question", reply[-80:])
    return Asked(asked, summed if mode == "sap" else "")


def copied(summary: str, passage: str) -> float:
    """The share of the words of `summary` that stand in runs of three that the passage has too."""
    return coverage(words(summary.casefold()), words(passage.casefold()))


def overlap_with_sentences(question: str, passage: str) -> float:
    """The highest ROUGE-L of the question to a sentence of the passage."""
    asked = words(question.casefold())
    sentences = (words(sentence.casefold()) for sentence in SENTENCE_END.split(passage))
    return max((rouge_l(asked, sentence) for sentence in sentences), default=0.0)


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"{name} is {value!r}; known: {', '.join(known)}")
