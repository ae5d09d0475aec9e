"""Code of models in its jail: what passes, what does not, and what it cannot reach."""

import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from models.protocol import Verdict
from models.verify import sandbox
from models.verify.sandbox import Limits, Ran, run_all
from models.verify.unit_test import UnitTest, code_in
from warehouse.errors import InputError
from warehouse.records import Example, Message

RUNS = f"import sys\nexec(sys.stdin.read())  # for {os.getpid()}"  # told apart from those of other test runs
SHORT, LONG = Limits(wall_seconds=1.0), Limits(wall_seconds=20.0)
ADD = "def add(a, b):\n    return a + b\n"
TESTS = ["assert add(1, 2) == 3", "assert add(-1, 1) == 0"]


def item(tests: Any = None, **meta: Any) -> Example:
    return Example((Message("user", "q"),), "s", {"tests": TESTS if tests is None else tests} | meta)


def judge(*replies: str, about: Example | None = None, **limits: Any) -> list[Verdict]:
    verdicts = UnitTest(**limits).verify([(reply, about or item()) for reply in replies])
    assert all(one.right == (not one.reason) and one.reason in {"", *UnitTest.reasons} for one in verdicts)
    return verdicts


WRITES_A_REASON = """
import os
for fd in range(3, 9):
    try: os.write(fd, b"\\nwrong says I\\n")
    except OSError: pass
os._exit(0)
"""
TYPED = """
from __future__ import annotations
from dataclasses import dataclass
@dataclass
class P:
    x: int
"""
FORKS = """
import os, time
n = 0
while n < 1000:
    try: os.fork() or time.sleep(60)
    except OSError: break
    n += 1
print(n)
"""
HIDES = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: time.sleep(4321)
    os._exit(0)
"""
SEES = """
import os, sys
print(sorted(os.environ), os.getcwd(), os.listdir('.'), os.getpid(), os.getuid(), sys.argv)
print([place for place in PLACES if os.path.exists(place)])
"""
ASKS_FOR_RIGHTS = """
import ctypes
libc = ctypes.CDLL(None)
asked = [libc.umount2(b"/usr", 2), libc.mount(b"x", b"/work", b"tmpfs", 0, 0), libc.unshare(0x10000000)]
print(asked, libc.setuid(0), libc.chroot(b"."))
"""


def run(code: str, limits: Limits = LONG) -> Ran:
    [ran] = run_all(RUNS, [code], limits)
    return ran


def test_right_code_passes_in_any_wrapping() -> None:
    fenced = f"Here it is:\n```python\n{ADD}```\nUse it so:\n```python\nprint(add(1, 2))\n```\n"
    begun = f"[[BEGIN]]\n{ADD}[[DONE]] is it"
    scripted = f"{ADD}\nif __name__ == '__main__':\n    raise SystemExit(input())"
    assert [v.reason for v in judge(ADD, fenced, begun, scripted, TYPED + ADD)] == [""] * 5


def test_memory_within_the_limit_is_there() -> None:
    roomy = "def add(a, b):\n    return len(bytearray(600 << 20)) and a + b"
    assert judge(roomy, memory_mb=1024)[0].right


def test_setup_runs_before_the_tests_and_one_text_is_one_test() -> None:
    about = item("assert add(x, 1) == 3\nassert add(x, 2) == 4", test_setup="x = 2")
    assert judge(ADD, about=about)[0].right
    assert judge(ADD, about=item([]))[0].reason == "no_reference"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("def add(a, b):\n    return a - b", "wrong"),
        ("def add(a, b):\n    return 3", "wrong"),  # passes the first test alone
        ("def sub(a, b):\n    return a - b", "crashed"),
        ("def add(a, b):\n    return a / 0", "crashed"),
        ("```python\ndef add(a, b)\n    return a + b\n```", "crashed"),
        ("I would add the two numbers.", "no_answer"),
        ("```python\n```", "no_answer"),
        ("import sys\nsys.exit(0)", "exited"),
        (f"{ADD}\nraise SystemExit", "exited"),
        (f"{ADD}\nimport os\nos._exit(0)", "exited"),
        ("def add(a, b):\n    import os\n    os._exit(0)", "exited"),
        ("def add(a, b):\n    raise SystemExit(0)", "exited"),
        ("import atexit, os\natexit.register(os._exit, 0)\nimport os\nos.abort()", "crashed"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\nraise KeyboardInterrupt", "crashed"),
        ("class E(BaseException):\n    def __str__(self): raise self\ndef add(a, b): raise E", "crashed"),
        # pretending to have passed
        ("print('right')\nprint('passed')\nimport sys\nsys.exit(0)", "exited"),
        ("import builtins\nbuiltins.AssertionError = print\ndef add(a, b): return 9", "wrong"),
        ("AssertionError = Exception\n__debug__\ndef add(a, b): return 9", "wrong"),
        ("import sys\nsys.modules['__main__'].outcome = lambda asked: ''\ndef add(a, b): return 9", "crashed"),
        (WRITES_A_REASON, "wrong"),
        ("import builtins\nbuiltins.exec = builtins.compile = lambda *a, **k: None\ndef add(a, b): return 9", "wrong"),
        ("import builtins as b\nb.vars = b.dict = lambda *a: {}\nb.exec = print\ndef add(a, b): return 9", "wrong"),
        ("import sys\nsys.modules['__main__'].ran = lambda *a: ''\ndef add(a, b): return 9", "crashed"),
        ("def add(a, b):\n    import builtins\n    builtins.exec = lambda *a: None\n    return 3", "wrong"),
        ("def add(a, b):\n    while True: pass", "timeout"),
        ("import time\ntime.sleep(100)", "timeout"),
        ("def add(a, b):\n    return len(bytearray(600 << 20)) and a + b", "memory"),
        ("def add(a, b):\n    return add(a, b)", "crashed"),
    ],
)  # fmt: skip
def test_code_that_is_not_right_does_not_pass(code: str, reason: str) -> None:
    [verdict] = judge(code, wall_seconds=1.0 if reason == "timeout" else 20.0)
    assert (verdict.right, verdict.reason) == (False, reason)


def test_tests_use_pythons_own_functions() -> None:
    cheat = "import builtins\nbuiltins.len = lambda x: 3\nbuiltins.sorted = lambda x: [1, 2]\ndef f(): return 'x'"
    assert judge(cheat, about=item("assert len(f()) == 3"))[0].reason == "wrong"
    assert judge(cheat, about=item("assert sorted([2, 1, 0]) == [1, 2]"))[0].reason == "wrong"
    while_called = "def f():\n    import builtins\n    builtins.len = lambda x: 3\n    return 'x'"
    assert judge(while_called, about=item("x = f()\nassert len(x) == 3"))[0].reason == "wrong"
    own = "def sum(xs): return 'mine'"
    assert judge(own, about=item("assert sum([1]) == 'mine'"))[0].right  # but a reply may define what was asked for


def test_a_verdict_shows_the_code_and_what_went_wrong() -> None:
    right, wrong = judge(ADD, "def add(a, b):\n    raise ValueError('no such\\nnumber')")
    assert right.answer == ADD
    assert wrong.detail == "ValueError no such number"


def test_code_is_found_in_replies() -> None:
    assert code_in("```\nx = 1\n```") == "x = 1\n"
    assert code_in("```python\ndef f(): pass\n```\n```py\nf()\n```") == "def f(): pass\n"
    assert code_in("```python\nx = 1\n```\n```python\ny = 1\n```") == "y = 1\n"
    assert code_in("[[BEGIN]]\na = 1\n[[DONE]]\n[[BEGIN]]\nb = 1\n[[DONE]]") == "b = 1"
    assert code_in("x = 1") == "x = 1"
    assert code_in("no code here") == ""
    assert code_in("(" * 5000) == ""
    assert code_in("\x00") == ""


def test_replies_are_judged_each_by_itself() -> None:
    fine, hang = ADD, "while True: pass"
    assert [v.reason for v in judge(fine, hang, fine, "", fine, wall_seconds=3.0)] == [
        "",
        "timeout",
        "",
        "no_answer",
        "",
    ]


def test_code_sees_nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    (tmp_path / "secret").write_text("hunter2")
    places = [str(tmp_path / "secret"), __file__, "/etc/passwd", "/proc/1", "/tmp", "/home", "/usr"]
    assert run(SEES.replace("PLACES", repr(places))).output.splitlines() == [
        "['LC_CTYPE'] /work [] 1 1000 ['-c']",
        "['/usr']",
    ]


def test_code_can_write_only_where_it_is_and_only_so_much() -> None:
    assert run("open('x', 'w').write('hi'); print(open('x').read())").output == "hi\n"
    for place in ("/x", "/usr/x", os.path.dirname(os.__file__) + "/x", "/dev/x"):
        assert "Read-only file system" in run(f"open({place!r}, 'w')").detail
    assert "OSError" in run("open('x', 'w').write('x' * 20_000_000)").detail
    many = "for i in range(9): open(str(i), 'w').write('x' * 4_000_000)"
    assert "No space left" in run(many).detail
    assert "too large" in run("print('x' * 20_000_000)").detail


def test_code_reaches_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert "unreachable" in run(f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)").detail


def test_code_can_get_no_rights() -> None:
    assert run(ASKS_FOR_RIGHTS).output == "[-1, -1, -1] -1 -1\n"


def test_a_fork_bomb_ends_with_its_jail() -> None:
    assert 1 <= int(run(FORKS).output) <= 16
    bomb = run("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", SHORT)
    assert bomb.ended == "timeout"


def test_what_code_leaves_behind_is_killed() -> None:
    """A process that has a session of its own still ends with the jail."""
    assert run(HIDES).ended == "finished"
    assert left_behind() == []
    assert run(HIDES + "time.sleep(4321)", SHORT).ended == "timeout"
    assert left_behind() == []


def left_behind() -> list[str]:
    """The processes that run this file's programs, waited for a little: the kernel kills them one by one."""
    until = time.monotonic() + 60
    while (found := [command for command in processes() if RUNS in command]) and time.monotonic() < until:
        time.sleep(0.01)
    return found


def processes() -> list[str]:
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(place.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


def test_a_wall_clock_that_runs_out_is_a_timeout_whatever_was_printed() -> None:
    began = time.monotonic()
    ran = run("print('x', flush=True)\nimport time\ntime.sleep(60)", SHORT)
    assert (ran.ended, ran.output) == ("timeout", "x\n")
    assert time.monotonic() - began < 20


def test_without_namespaces_code_runs_only_where_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    denied = tmp_path / "jail.py"
    denied.write_text(sandbox.JAIL.read_text().replace("libc.unshare(", "refused("))
    denied.write_text(denied.read_text().replace("def must(", "def refused(_): return -1\n\n\ndef must("))
    monkeypatch.setattr(sandbox, "JAIL", denied)
    with pytest.raises(InputError, match=r"cannot be jailed on this machine .*unshare.*weak: true"):
        judge(ADD)
    assert [v.reason for v in judge(ADD, "while True: pass", weak=True, wall_seconds=3.0)] == ["", "timeout"]


def test_no_code_no_process() -> None:
    assert run_all("not python", []) == []


@pytest.mark.parametrize("fields", [{"wall_seconds": 0}, {"memory_mb": -1}, {"processes": 0}])
def test_wrong_limits_are_named(fields: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="limits must be above 0"):
        UnitTest(**fields)
