"""Five forms of a thought (the patterns of ThinkPatterns-21k, arXiv 2503.12918): what a model is told about each, and
whether a thought has the form."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

LABEL = r"^[ \t>*_#]*{name}[ \t]*[*_]*[ \t]*[:：][ \t*_]*"
HEADING = re.compile(r"^[ \t]*(?:#{1,6}[ \t]|\*\*[^*\n]+\*\*:?[ \t]*$)", re.MULTILINE)
LEAST_PARTS = 2  # sub-problems, questions, positions, turns of a position


@dataclass(frozen=True, slots=True)
class Form:
    """`told` is the contract in the prompt, `lacks` what a thought that breaks it lacks, "" for one that keeps it."""

    told: str
    lacks: Callable[[str], str]


def marks(thought: str, names: str) -> list[tuple[str, str]]:
    """Labels at the start of a line, as written (lower case), each with the text up to the next one.

    `names` is a pattern of labels, for instance `Q|A`.
    """
    found = list(re.finditer(LABEL.format(name=f"({names})"), thought, re.MULTILINE | re.IGNORECASE))
    ends = [*(one.start() for one in found), len(thought)][1:]
    return [
        (" ".join(one[1].lower().split()), thought[one.end() : end].strip())
        for one, end in zip(found, ends, strict=True)
    ]


def no_labels(thought: str) -> str:
    every = r"subtask[ \t]*\d+|synthesis|q|a|position[ \t]*[a-z]|resolution|draft|critique|revision"
    found = next((name for name, _ in marks(thought, every)), "")
    return f"label {found!r}" if found else ("heading" if HEADING.search(thought) else "")


def decomposed(thought: str) -> str:
    """`Subtask 1`, `Subtask 2`, ... in order, at least two, and then `Synthesis`, none of them empty."""
    found = marks(thought, r"subtask[ \t]*\d+|synthesis")
    count = len(found) - 1
    expected = [*(f"subtask {k}" for k in range(1, count + 1)), "synthesis"]
    return _differs([name for name, _ in found], expected) or _few(count) or _blank(found)


def asked_itself(thought: str) -> str:
    """`Q` and `A` in turn, numbered or not, at least two of each, none of them empty."""
    found = marks(thought, r"[qa][ \t]*\d*")
    pairs = len(found) // 2
    return _differs([name[0] for name, _ in found], ["q", "a"] * pairs) or _few(pairs) or _blank(found)


def debated(thought: str) -> str:
    """At least two positions of at least two turns each, and then `Resolution`, none of them empty."""
    found = marks(thought, r"position[ \t]*[a-z]|resolution")
    names = [name for name, _ in found]
    if not names or names[-1] != "resolution" or names.count("resolution") != 1:
        return "resolution at the end"
    turns = {name: names.count(name) for name in names[:-1]}
    if not {"position a", "position b"} <= set(turns):
        return "positions A and B"
    short = [name for name, count in turns.items() if count < LEAST_PARTS]
    return f"{LEAST_PARTS} turns of {short[0]}" if short else _blank(found)


def criticised(thought: str) -> str:
    """`Draft`, `Critique` and `Revision` in this order, none of them empty."""
    found = marks(thought, r"draft|critique|revision")
    return _differs([name for name, _ in found], ["draft", "critique", "revision"]) or _blank(found)


def _differs(names: Sequence[str], expected: Sequence[str]) -> str:
    return "" if list(names) == list(expected) else f"labels in order; found {', '.join(names) or 'none'}"


def _few(count: int) -> str:
    return "" if count >= LEAST_PARTS else f"{LEAST_PARTS} parts; found {count}"


def _blank(found: Sequence[tuple[str, str]]) -> str:
    return next((f"text after {name!r}" for name, text in found if not text), "")


FORMS: Mapping[str, Form] = {
    "monologue": Form(
        "The form is a monologue: free thinking in the first person, in paragraphs, without headings, labels or lists.",
        no_labels,
    ),
    "decomposition": Form(
        'The form is a decomposition: lines that begin with "Subtask 1:", "Subtask 2:" and so on, at least two, each '
        'followed by the sub-problem and its solution; then a line that begins with "Synthesis:" and joins them.',
        decomposed,
    ),
    "self_ask": Form(
        'The form is questions to oneself: lines that begin with "Q:" and hold a question that must be answered on the '
        'way, each followed by a line that begins with "A:" and answers it. Use at least two such pairs.',
        asked_itself,
    ),
    "self_debate": Form(
        'The form is a debate with oneself: lines that begin with "Position A:" and "Position B:" and argue with each '
        'other, each at least twice; then a line that begins with "Resolution:" and settles it.',
        debated,
    ),
    "self_critic": Form(
        'The form is criticism of oneself, in three parts: "Draft:" with a first idea of an answer, in short; '
        '"Critique:" with what is wrong or missing in it; "Revision:" with the plan of a better answer.',
        criticised,
    ),
}
PATTERNS: tuple[str, ...] = tuple(FORMS)
