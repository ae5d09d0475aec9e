"""The program that runs in the jail of `models.verify.trace`: statements one by one, and the state after each.

Reads a list of statements as JSON from standard input and writes one line of JSON per statement that ended without an
error: {"state", "new", "answer"}. The state is a digest of the sorted values of all variables, so their names do not
count; `new` says whether it holds a value that the state before did not; `answer` is the value of the variable of that
name, null where there is none. Standard library only.
"""

import hashlib
import io
import json
import os
import re
import sys
import types
from collections.abc import Iterator, Sequence

CHARS = 256
PLACES = 6
DEPTH = 8
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def written(value: object, depth: int = 0) -> str:
    """`value` as text of at most CHARS characters, equal where values are: floats are rounded to PLACES, sets sorted.

    A longer text ends in a digest of all of it.
    """
    text = _text(value, depth)
    if len(text) <= CHARS:
        return text
    return f"{text[: CHARS - 33]}…{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:32]}"


def _text(value: object, depth: int) -> str:
    if isinstance(value, float):
        return repr(round(value, PLACES) + 0.0)  # -0.0 is 0.0
    if depth < DEPTH:
        if isinstance(value, list | tuple):
            inner = ", ".join(written(each, depth + 1) for each in value)
            return f"[{inner}]" if isinstance(value, list) else f"({inner})"
        if isinstance(value, set | frozenset):
            return "{" + ", ".join(sorted(written(each, depth + 1) for each in value)) + "}"
        if isinstance(value, dict):
            pairs = (f"{written(k, depth + 1)}: {written(v, depth + 1)}" for k, v in value.items())
            return "{" + ", ".join(pairs) + "}"
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | type):
        return f"<{type(value).__name__}>"
    return ADDRESS.sub("", repr(value))


def values_of(variables: dict[str, object]) -> tuple[str, ...]:
    """The state: the values of all variables, sorted. Modules and names that begin with two underscores are none."""
    kept = (v for name, v in variables.items() if not name.startswith("__") and not isinstance(v, types.ModuleType))
    return tuple(sorted(written(value) for value in kept))


def key_of(state: tuple[str, ...]) -> str:
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:32]


def steps(statements: Sequence[str]) -> Iterator[dict[str, object]]:
    """What holds after each statement. Raises what a statement raises."""
    space: dict[str, object] = {"__name__": "__main__"}
    before: set[str] = set()
    for statement in statements:
        exec(compile(statement, "<reply>", "exec", dont_inherit=True), space)
        state = values_of(space)
        answer = _answer(space["answer"]) if "answer" in space else None
        yield {"state": key_of(state), "new": not before.issuperset(state), "answer": answer}
        before = set(state)


def main() -> None:
    statements = json.loads(sys.stdin.read())
    heard = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(nowhere, descriptor)
    sys.stdin = io.StringIO()
    for step in steps(statements):
        os.write(heard, (json.dumps(step) + "\n").encode())


def _answer(value: object) -> str:
    return value[:CHARS] if isinstance(value, str) else written(value)


if __name__ == "__main__":
    main()
