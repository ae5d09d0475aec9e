"""TInt: questions about arithmetic functions, answered by the trace of their computation, with controlled noise.

After arXiv 2402.04004 (abstract): static noise edits the finished trace, dynamic noise corrupts values while computing
so that errors propagate. Every row says which noise it has, so whether a selection avoids bad rows is a fact.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import ClassVar

import numpy as np

from models.dialogue import Dialogue
from synthesis.draft import Draft, touched_label
from synthesis.machine import OPS, PAIR_OPS, Expression, Machine, Slip, Step, Value, replay
from synthesis.noise import DynamicNoise, StaticNoise, check_probabilities
from synthesis.protocol import Needs, Seeds
from synthesis.rows import check_split, emit_all, example, stream
from synthesis.skill import Rng, Split, between, pick, split_of
from warehouse.errors import InputError
from warehouse.records import Example, canonical

PHRASINGS = (
    "Compute {call}. Show your work.",
    "Work out {call} step by step.",
    "What is {call}? Give the steps.",
    "Trace {call} and then give the final answer.",
)


def joined(step: Step) -> str:
    return " ".join(map(str, step.operands))


def compact(step: Step) -> str:
    return f"{step.op} {joined(step)} = {step.result}"


def verbose(step: Step) -> str:
    return f"We take {step.op} of {joined(step)} and we get {step.result}."


def scratchpad(step: Step) -> str:
    return f"[{joined(step)}] {step.op}: {step.result}"


def as_json(step: Step) -> str:
    return canonical({"op": step.op, "of": list(step.operands), "is": step.result})


@dataclass(frozen=True, slots=True)
class Rendering:
    """How a step and the final answer are written, one line each."""

    step: Callable[[Step], str]
    last: str = "Final answer: {answer}"

    def lines(self, steps: Sequence[Step]) -> list[str]:
        return [self.step(step) for step in steps]

    def end(self, answer: str) -> str:
        return self.last.replace("{answer}", answer)

    def answer_in(self, reply: str) -> str:
        """The answer that a reply's last line gives."""
        before, _, after = self.last.partition("{answer}")
        return reply.rsplit("\n", 1)[-1].removeprefix(before).removesuffix(after)


RENDERINGS: Mapping[str, Rendering] = {
    "compact": Rendering(compact),
    "verbose": Rendering(verbose),
    "scratchpad": Rendering(scratchpad),
    "json": Rendering(as_json, '{"answer":"{answer}"}'),
}


def written(value: Value) -> str:
    """An answer as text: `12`, or `1, 4, 9` for a list."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def call(expression: Expression) -> str:
    """An expression as it is asked: `add(sum(3, 4, 5), 7)`."""
    if isinstance(expression, int):
        return str(expression)
    if expression and isinstance(expression[0], str):
        return f"{expression[0]}({', '.join(map(call, expression[1:]))})"
    return ", ".join(map(str, expression))


@dataclass(frozen=True, slots=True)
class Programs:
    """Which expressions are drawn: operations, digits per number, numbers per list, nested operations."""

    ops: Sequence[str] = tuple(OPS)
    digits: int = 2
    length: int = 3
    depth: int = 1

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.ops) - set(OPS)):
            raise InputError(f"tint: unknown ops {', '.join(unknown)}; known ops: {', '.join(OPS)}")
        low = {"digits": 1, "length": 2, "depth": 1}
        if wrong := {name: value for name, floor in low.items() if (value := getattr(self, name)) < floor}:
            raise InputError(f"tint: {wrong} is too small; the least values are {low}")
        if self.depth > 1 and not set(self.ops) & set(PAIR_OPS):
            raise InputError(f"tint: depth {self.depth} needs one of the ops {', '.join(PAIR_OPS)} to nest in")

    def number(self, rng: Rng) -> int:
        return between(rng, 1, 10**self.digits - 1)

    def draw(self, rng: Rng, depth: int = 0) -> Expression:
        """An expression of `depth` nested operations (0: `self.depth`); what holds another one takes two numbers."""
        depth = depth or self.depth
        if depth > 1:
            op = pick(rng, tuple(op for op in self.ops if op in PAIR_OPS))
            return [op, self.draw_inner(rng, depth - 1), self.number(rng)]
        op = pick(rng, tuple(self.ops))
        if op in PAIR_OPS:
            return [op, self.number(rng), self.number(rng)]
        return [op, [self.number(rng) for _ in range(self.length)]]

    def draw_inner(self, rng: Rng, depth: int) -> Expression:
        """An expression whose value is one number: a sorted list has no place inside another operation."""
        ops = tuple(op for op in self.ops if op != "sort")
        return Programs(ops, self.digits, self.length, depth).draw(rng)


@dataclass(frozen=True, slots=True)
class Traces:
    """The traced family: as other skills, but the reply is a trace and then the answer."""

    programs: Programs = field(default_factory=Programs)
    rendering: str = "compact"
    name: str = "tint"

    def __post_init__(self) -> None:
        if self.rendering not in RENDERINGS:
            raise InputError(f"tint: unknown rendering {self.rendering!r}; known renderings: {', '.join(RENDERINGS)}")

    def identity(self, expression: Expression) -> str:
        return canonical([self.name, expression])

    def draw_in(self, split: Split, rng: Rng) -> Expression:
        while True:
            expression = self.programs.draw(rng)
            if split_of(self.identity(expression)) == split:
                return expression

    def clean(self, split: Split, rng: Rng) -> Draft:
        expression = self.draw_in(split, rng)
        return self.draft(expression, rng, Machine())

    def static(self, rng: Rng, noise: StaticNoise) -> Draft:
        expression = self.draw_in("pool", rng)
        machine = Machine()
        answer = written(machine.run(expression))
        lines = self.style.lines(machine.steps)
        edited, touched = noise(lines, [False] * len(lines), rng)
        reply = "\n".join((*edited, self.style.end(answer)))
        return Draft(
            self.name, self.identity(expression), ask(expression, rng), reply, answer, **touched_label(touched)
        )

    def dynamic(self, rng: Rng, noise: DynamicNoise) -> Draft:
        expression = self.draw_in("pool", rng)

        def corrupt(step: int, value: int) -> int:
            return noise.corrupt(value, rng) if rng.random() < noise.p_step else value

        return self.draft(expression, rng, Machine(corrupt))

    def draft(self, expression: Expression, rng: Rng, machine: Machine) -> Draft:
        """What `machine` makes of the expression, labelled by what it corrupted."""
        answer = written(Machine().run(expression))
        derived = written(machine.run(expression))
        reply = "\n".join((*self.style.lines(machine.steps), self.style.end(derived)))
        return Draft(
            skill=self.name,
            problem=self.identity(expression),
            question=ask(expression, rng),
            reply=reply,
            answer=answer,
            noise="dynamic" if machine.log else "clean",
            n_corrupted=len(machine.log),
            first_bad_step=machine.log[0].step if machine.log else None,
            final_correct=derived == answer,
            log=tuple(asdict(slip) for slip in machine.log),
        )

    @property
    def style(self) -> Rendering:
        return RENDERINGS[self.rendering]


def ask(expression: Expression, rng: Rng) -> str:
    return pick(rng, PHRASINGS).replace("{call}", call(expression))


def derive(problem: str, log: Sequence[Mapping[str, int]] = ()) -> str:
    """The answer that running `problem` (a row's `problem`) gives under a row's corruption `log`: the self-check."""
    _, expression = json.loads(problem)
    return written(Machine(replay([Slip(**entry) for entry in log])).run(expression))


@dataclass(frozen=True, slots=True)
class Tint:
    """Traced questions only. `static` and `dynamic` are the shares of rows that each noise touches; only the pool split
    has noise."""

    needs: ClassVar[Needs] = Needs()
    reasons: ClassVar[frozenset[str]] = frozenset()
    told: ClassVar[str] = ""

    rows: int = 1000
    split: Split = "pool"
    ops: Sequence[str] = tuple(OPS)
    digits: int = 2
    length: int = 3
    depth: int = 1
    rendering: str = "compact"
    static: float = 0.0
    dynamic: float = 0.0
    p_line_del: float = 0.1
    p_line_dup: float = 0.1
    p_line_swap: float = 0.1
    p_char: float = 0.05
    p_step: float = 0.2
    kinds: Sequence[str] = ("replace_random", "off_by_one", "digit_flip")

    def __post_init__(self) -> None:
        check_split(self.split)
        check_probabilities(
            "tint", {"static": self.static, "dynamic": self.dynamic, "both": self.static + self.dynamic}
        )
        if self.split != "pool" and self.static + self.dynamic > 0:
            raise InputError(f"tint: the {self.split} split is always clean; static and dynamic must be 0")
        _ = self.traces, self.static_noise, self.dynamic_noise

    @property
    def traces(self) -> Traces:
        return Traces(Programs(tuple(self.ops), self.digits, self.length, self.depth), self.rendering)

    @property
    def static_noise(self) -> StaticNoise:
        return StaticNoise(self.p_line_del, self.p_line_dup, self.p_line_swap, self.p_char)

    @property
    def dynamic_noise(self) -> DynamicNoise:
        return DynamicNoise(self.p_step, tuple(self.kinds))

    def examples(self, seed: int, start: int, stop: int) -> Iterator[Example]:
        """Rows `start` to `stop`, the same ones in any partition of the range."""
        return (example(self.draft(stream(seed, f"tint/{self.split}", i)), "tint") for i in range(start, stop))

    def draft(self, rng: Rng) -> Draft:
        touch = rng.random()
        if touch < self.static:
            return self.traces.static(rng, self.static_noise)
        if touch < self.static + self.dynamic:
            return self.traces.dynamic(rng, self.dynamic_noise)
        return self.traces.clean(self.split, rng)

    def __call__(self, seeds: Seeds, rng: np.random.Generator) -> Dialogue[None]:
        yield from emit_all(self.examples(int(rng.integers(2**63)), 0, self.rows))
