"""Evol-Instruct (Xu et al. 2023, arXiv 2304.12244): instructions that become harder, or stranger, round by round.

The evolution is kept as a tree: each row names the row that it was made from, by which operator and in which round.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from models.dialogue import Dialogue, Emit, Rejected, each
from models.protocol import Prompt
from models.telling import telling
from models.verify.reference import question_of
from synthesis.attempts import (
    FAILED_JUDGE,
    JUDGE_TOKENS,
    LOST,
    NO_QUESTION,
    TEMPLATES,
    answered,
    asked_instead,
    streams,
)
from synthesis.closeness import rouge_l
from synthesis.drawing import check_drawing
from synthesis.eda import STOP_WORDS
from synthesis.fault import Fault, ask
from synthesis.outcomes import outcome
from synthesis.protocol import Needs, Seeds
from synthesis.self_instruct.novelty import rouge_words
from synthesis.skill import Rng, between, pick
from warehouse.cleaning.parameters import check_count, check_share, check_switch, check_texts
from warehouse.errors import InputError
from warehouse.records import Example, Message, Messages, canonical, digest

SOURCE = "evol"
GENERATOR, JUDGE = "generator", "judge"
DEPTH, BREADTH = telling(TEMPLATES, "evol_depth.v1"), telling(TEMPLATES, "evol_breadth.v1")
GAIN = telling(TEMPLATES, "evol_gain.v1")
IN_DEPTH: Mapping[str, str] = {
    "constrain": "add one constraint or requirement more",
    "deepen": "ask about its matter in more depth, or about more sides of it",
    "concretise": "replace something general in it by something more specific",
    "reason": "change it so that an answer needs more steps of reasoning, and ask for these",
}
IN_BREADTH = "breadth"
OPERATORS = (*IN_DEPTH, IN_BREADTH)
PROMPT_WORDS = re.compile(
    r"\b(?:given|rewritten|evolved|new|harder|created|original)[ _-]+(?:prompt|instruction)s?\b",
    re.IGNORECASE,
)
SORRY, SORRY_WORDS = "sorry", 80
EQUAL = re.compile(r"[\s\"'*`]*(equal|different)[\s\"'*`.!]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Node:
    """An instruction that stands: the sample id of its row, and the round it was made in, 0 for a seed."""

    text: str
    key: str
    round: int


@dataclass(frozen=True, slots=True)
class Child:
    """What a round made of a node."""

    parent: Node
    operator: str
    round: int
    text: str = ""
    reply: str = ""


@dataclass(frozen=True, slots=True)
class Evol:
    """`rounds` rows for each seed: its instruction, evolved once more in each round and answered.

    rounds        how often an instruction is evolved
    operators     of which one is drawn in each round, each as likely: four that make an instruction harder, and
                  "breadth", which makes another one of the same field
    judge         whether the model in role "judge" says that a child asks for the same as its parent; else ROUGE-L does
    most_similar  the ROUGE-L to the parent from which nothing was gained; not read where there is a judge
    max_tokens, temperature, top_p  how instructions and answers are drawn, by the model in role "generator"

    A child that fails, or whose answer does, is rejected, and the next round starts from the same parent again. So each
    seed ends in `rounds` rows, each accepted or rejected. Seeds are not among them.
    """

    reasons: ClassVar[frozenset[str]] = LOST | FAILED_JUDGE | {
        NO_QUESTION, "several_questions", "same_as_earlier", "no_gain", "judge_unclear", "echoes_prompt", "sorry",
        "only_stop_words",
    }  # fmt: skip

    rounds: int = 4
    operators: Sequence[str] = OPERATORS
    judge: bool = False
    most_similar: float = 0.9
    max_tokens: int = 2048
    temperature: float = 1.0
    top_p: float = 0.95

    def __post_init__(self) -> None:
        check_count("rounds", self.rounds, 1)
        check_count("max_tokens", self.max_tokens, 1)
        check_switch("judge", self.judge)
        check_share("most_similar", self.most_similar)
        check_drawing(self.temperature, self.top_p)
        check_texts("operators", self.operators, OPERATORS)
        if not self.operators:
            raise InputError(f"operators is empty; give some of {', '.join(OPERATORS)}")

    @property
    def needs(self) -> Needs:
        return Needs(models=(GENERATOR, JUDGE) if self.judge else (GENERATOR,), seeds=True)

    @property
    def told(self) -> str:
        judged = [GAIN.key] if self.judge else []
        return digest(canonical([DEPTH.key, BREADTH.key, *judged, dict(IN_DEPTH)]))

    def __call__(self, seeds: Seeds, rng: np.random.Generator) -> Dialogue[None]:
        yield from each(zip(seeds, streams(seeds, rng), strict=True), lambda pair: self._seed(*pair))

    def _seed(self, seed: Example, rng: Rng) -> Dialogue[None]:
        if reason := self._unfit(seed):
            meta = {"parents": [seed.sample_id], "template": [DEPTH.key, BREADTH.key]}
            yield [Emit((Rejected(reason, example=Example(seed.messages, SOURCE, meta)),))]
            return
        lineage = [Node(question_of(seed)[-1].content.strip(), seed.sample_id, 0)]
        for number in range(1, self.rounds + 1):
            operator = pick(rng, tuple(self.operators))
            child, fault = yield from self._child(seed, Child(lineage[-1], operator, number), lineage, rng)
            row = self._row(seed, child)
            if fault is None:
                lineage.append(Node(child.text, row.sample_id, number))
            yield [Emit((outcome(row, fault),))]

    def _unfit(self, seed: Example) -> str:
        """Why a seed cannot be evolved: there must be one question, and it must be the last turn before the reply."""
        asked = question_of(seed)
        if not asked or asked[-1].role != "user" or not asked[-1].content.strip():
            return NO_QUESTION
        return "several_questions" if sum(turn.role != "system" for turn in asked) > 1 else ""

    def _child(
        self, seed: Example, child: Child, lineage: Sequence[Node], rng: Rng
    ) -> Dialogue[tuple[Child, Fault | None]]:
        """What became of a child, as far as it came, and why it is not kept, if it is not."""
        seeds = [between(rng, 0, 2**31 - 1) for _ in range(2)]  # drawn whether they are used or not
        text = yield from ask(GENERATOR, self._prompt((Message("user", evolution(child)),), seeds[0]))
        if isinstance(text, Fault):
            return child, text
        child = Child(child.parent, child.operator, child.round, text)
        if fault := echo(child) or same(child, lineage) or (yield from self._gain(child)):
            return child, fault
        reply = yield from ask(GENERATOR, self._prompt(asked_instead(question_of(seed), text), seeds[1]))
        if isinstance(reply, Fault):
            return child, reply
        return Child(child.parent, child.operator, child.round, text, reply), no_answer(reply)

    def _prompt(self, messages: Messages, seed: int) -> Prompt:
        return Prompt(messages, self.max_tokens, self.temperature, self.top_p, seed=seed)

    def _gain(self, child: Child) -> Dialogue[Fault | None]:
        """Why a child asks for nothing that its parent does not ask for; None where it does."""
        if not self.judge:
            similarity = rouge_l(rouge_words(child.text), rouge_words(child.parent.text))
            return Fault("no_gain", f"ROUGE-L {similarity:.3f}") if similarity >= self.most_similar else None
        asked = GAIN(parent=child.parent.text, child=child.text)
        said = yield from ask(JUDGE, Prompt((Message("user", asked),), JUDGE_TOKENS))
        if isinstance(said, Fault):
            return Fault(f"judge_{said.reason}", said.detail)
        found = EQUAL.fullmatch(said)
        if found is None:
            return Fault("judge_unclear", said[:80])
        return Fault("no_gain", "judge") if found[1].lower() == "equal" else None

    def _row(self, seed: Example, child: Child) -> Example:
        asked = asked_instead(question_of(seed), child.text)
        templates = [(BREADTH if child.operator == IN_BREADTH else DEPTH).key, *([GAIN.key] if self.judge else [])]
        meta: dict[str, Any] = {
            "parents": [seed.sample_id],
            "template": templates,
            "parent_id": child.parent.key,
            "parent_round": child.parent.round,
            "operator": child.operator,
            "round": child.round,
        }
        return Example(answered(asked, child.reply) if child.reply else asked, SOURCE, meta)


def evolution(child: Child) -> str:
    """What the generator is told so that it makes a child of its parent."""
    if child.operator == IN_BREADTH:
        return BREADTH(text=child.parent.text)
    return DEPTH(text=child.parent.text, operation=IN_DEPTH[child.operator])


def echo(child: Child) -> Fault | None:
    """Whether a child speaks of the prompt that it was made by, and its parent does not."""
    found = PROMPT_WORDS.search(child.text)
    return Fault("echoes_prompt", found[0]) if found and not PROMPT_WORDS.search(child.parent.text) else None


def same(child: Child, lineage: Sequence[Node]) -> Fault | None:
    """Whether a child has the words of one of its ancestors."""
    words = child.text.casefold().split()
    earlier = next((node for node in lineage if node.text.casefold().split() == words), None)
    return None if earlier is None else Fault("same_as_earlier", f"round {earlier.round}")


def no_answer(reply: str) -> Fault | None:
    """Why an answer shows that its instruction is of no use: a short apology, or nothing but stop words and signs."""
    count = len(reply.split())
    if SORRY in reply.casefold() and count < SORRY_WORDS:
        return Fault("sorry", f"{count} words")
    return Fault("only_stop_words", reply[:80]) if set(rouge_words(reply)) <= STOP_WORDS else None
