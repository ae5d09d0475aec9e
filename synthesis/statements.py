"""The text that winnow-tiny is trained on: plain statements of solved problems and a little connecting text.

Only pool problems are stated, never a target, validation or test problem; and never in the words of a question of the
pool. A document is a function of (seed, i), so any process can make any part of the corpus.
"""

import re
from collections.abc import Mapping
from zlib import crc32

import numpy as np

from synthesis.chatter import CLOSINGS, MIDDLES, OPENINGS
from synthesis.skill import Rng, between, pick
from synthesis.skills import SKILLS
from synthesis.words import listed

# Skills that a 2 M-parameter model learns slowly are stated more often (docs/log.md).
WEIGHTS: Mapping[str, float] = {
    "arithmetic": 2.5, "reverse": 1.5, "shift": 1.5, "sorting": 1.5, "sequence": 1.5,
    "counting": 1.2, "logic": 1.2, "classification": 1.2, "comparison": 1.2,
}  # fmt: skip
NAMES = tuple(SKILLS)
SHARES = np.array([WEIGHTS.get(name, 1.0) for name in NAMES]) / sum(WEIGHTS.get(name, 1.0) for name in NAMES)
CONNECTING_SHARE = 0.06
SAME_SKILL_SHARE = 0.3

TALK = (
    "the teacher says {v} and the class says {w}.",
    "some people write {v}, others write {w}.",
    "one can hear {v} as well as {w} in a talk.",
    "{V} is a word, and so is {w}.",
    "{V} {w} {u}, they said.",
    "we read {v} {w} in a book and {u} in another.",
    "whoever says {v} may also say {u}.",
    '"{V} {u}" was the start of the letter.',
    "her note had {v}, {u} and {w} on it.",
)
TRACE_WORDS = listed(
    "Compute step trace carry keep total sum mean median max min gcd sort insert list result then of and smallest "
    "biggest middle value common divisor product Show your work Final answer steps left remainder"
)


def words_of_the_questions() -> tuple[str, ...]:
    """Every word that a phrasing, a trace or a wordy answer is made of, sorted, without the problem's slots."""
    questions = [phrasing for skill in SKILLS.values() for phrasing in skill.phrasings]
    text = " ".join((*questions, *OPENINGS, *MIDDLES, *CLOSINGS, *TRACE_WORDS))
    return tuple(sorted(set(re.findall(r"[A-Za-z]+", re.sub(r"\{\w+\}", " ", text)))))


VOCABULARY = words_of_the_questions()


def talk(rng: Rng) -> str:
    """One sentence without a problem, so that the words of questions are no strangers to the model."""
    v, w, u = (pick(rng, VOCABULARY) for _ in range(3))
    return pick(rng, TALK).format(v=v, w=w, u=u, V=v.capitalize())


def aside(rng: Rng) -> str:
    """Words that part a problem from its answer, so that answering is not bound to the place right after a phrase."""
    words = " ".join(pick(rng, VOCABULARY) for _ in range(between(rng, 1, 8)))
    return pick(rng, (" ({words}) ", ", {words}, ", ": {words}: ", " - {words}\n", ".\n{words}\n")).format(words=words)


def statement(rng: Rng, name: str, asides: float = 0.0) -> str:
    """One solved pool problem of the skill `name` as a plain sentence, with an aside in a share `asides` of them."""
    skill = SKILLS[name]
    slots = skill.draw_in("pool", rng)
    template = pick(rng, skill.statements)
    if asides and rng.random() < asides:
        before, _, after = template.partition("{answer}")
        template = before.rstrip() + aside(rng) + "{answer}" + after
    return template.format(**slots, answer=skill.answer(slots))


def document(seed: int, i: int, asides: float = 0.0) -> str:
    """Document `i` of the corpus: one to six sentences, of one skill or of several."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, crc32(b"statements"), i]))
    n = between(rng, 1, 6)
    if rng.random() < CONNECTING_SHARE:
        return " ".join(talk(rng) for _ in range(n))
    names = [NAMES[int(k)] for k in rng.choice(len(NAMES), size=n, p=SHARES)]
    if rng.random() < SAME_SKILL_SHARE:
        names = names[:1] * n
    return " ".join(statement(rng, name, asides) for name in names)
