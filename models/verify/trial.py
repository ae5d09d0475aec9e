"""The program that runs in the jail of `models.verify.unit_test`: a reply's code, then the tests of its item.

Reads {"code", "setup", "tests", "word"} as JSON from standard input. The last line of its output is `word` where every
test ended without an error, else a reason and a detail. `word` is new for each run, so text that the code prints is no
pass, nor is an exit before the tests have ended. Standard library only.
"""

import builtins
import io
import json
import os
import sys
from types import ModuleType
from typing import Any


def main() -> None:
    asked = json.loads(sys.stdin.read())
    heard = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    sys.stdin = io.StringIO()
    word = asked.pop("word")
    del sys.modules["__main__"]  # this program is not there for the code to change
    os.write(heard, f"\n{outcome(asked) or word}\n".encode("utf-8", "replace"))
    os._exit(0)  # whatever threads and exit handlers the code has left


def outcome(asked: dict[str, Any]) -> str:
    """What went wrong: a reason and a detail; "" where nothing did."""
    run, functions = ran, vars(builtins)
    pristine = dict(functions)
    module = ModuleType("reply")  # not "__main__": what a reply does as a script is no part of its answer
    sys.modules["reply"], made = module, vars(module)
    fault = run(asked["code"], made, "crashed")
    space = {**made, "__builtins__": pristine}  # the tests' own functions are those of Python
    for test in (asked["setup"], *asked["tests"]):
        functions.update(pristine)  # and so are this program's, whatever the code made of them
        fault = fault or run(test, space, "wrong")
    return fault


def ran(source: str, space: dict[str, Any], failed: str) -> str:
    """The reason and detail of what `source` raised; an assertion that does not hold is `failed`."""
    try:
        exec(compile(source, "<reply>", "exec", dont_inherit=True, optimize=0), space)
    except SystemExit:
        return "exited before the tests had ended"
    except MemoryError:
        return "memory"
    except AssertionError as error:
        return f"{failed} AssertionError {told(error)}"
    except BaseException as error:  # noqa: BLE001  # the code may raise anything
        return f"crashed {type(error).__name__} {told(error)}"
    return ""


def told(error: BaseException) -> str:
    try:
        return " ".join(str(error).split())[:160]
    except BaseException:  # noqa: BLE001  # the code may have written __str__
        return ""


if __name__ == "__main__":
    main()
