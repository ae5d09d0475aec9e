"""Each format by its columns alone; each bad row by its reason."""

import datetime
import decimal
import json
from pathlib import Path
from typing import Any

import pytest

from warehouse.export import FORMATS as EXPORTED
from warehouse.export import SUFFIXES
from warehouse.formats import FORMATS, ROLES, SOURCE_COLUMNS, Interpreter, formats, known_formats, recognise
from warehouse.records import Example
from warehouse.rejects import Reason, Refused
from warehouse.sources import COMPRESSIONS, KINDS

USER, REPLY = {"role": "user", "content": "ask"}, {"role": "assistant", "content": "reply"}


def interpret(row: dict[str, Any]) -> Example | Refused:
    return Interpreter("label")(row)


def example(row: dict[str, Any]) -> Example:
    found = interpret(row)
    assert isinstance(found, Example), found
    return found


def turns(row: dict[str, Any]) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in example(row).messages]


def reason(row: dict[str, Any]) -> Reason:
    found = interpret(row)
    assert isinstance(found, Refused), found
    return found.reason


def text_part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


PAIR = [("user", "ask"), ("assistant", "reply")]
LED = [("system", "be"), *PAIR]
LONG = [("user", "q0"), ("assistant", "a0"), *PAIR]


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"instruction": "ask", "output": "reply"}, PAIR),
        ({"instruction": "ask", "input": "", "output": "reply"}, PAIR),
        ({"instruction": "ask", "input": None, "output": "reply", "system": "", "history": []}, PAIR),
        ({"instruction": "ask", "input": "it", "output": "reply"}, [("user", "ask\n\nit"), ("assistant", "reply")]),
        ({"instruction": "", "input": "ask", "output": "reply"}, PAIR),
        ({"Instruction": "ask", "OUTPUT": "reply", "System": "be"}, LED),
        ({"instruction": "ask", "output": "reply", "history": [["q0", "a0"]]}, LONG),
        ({"instruction": "ask", "output": "reply", "history": '[["q0", "a0"]]'}, LONG),
        ({"instruction": "ask", "output": 6}, [("user", "ask"), ("assistant", "6")]),
        ({"instruction": "ask", "input": float("nan"), "output": "reply"}, PAIR),
        ({"conversations": [{"from": "human", "value": "ask"}, {"from": "gpt", "value": "reply"}]}, PAIR),
        ({"conversation": [{"from": "HUMAN", "value": "ask"}, {"from": "gpt", "value": "reply"}], "system": "be"}, LED),
        ({"conversations": {"from": ["human", "gpt"], "value": ["ask", "reply"]}}, PAIR),
        ({"conversations": [USER, REPLY]}, PAIR),
        ({"messages": [USER, REPLY]}, PAIR),
        ({"messages": json.dumps([USER, REPLY])}, PAIR),
        ({"messages": [{"role": "system", "content": "be"}, USER, REPLY], "system": "not this"}, LED),
        ({"messages": [{"role": "developer", "content": "be"}, USER, REPLY]}, LED),
        ({"messages": [{"role": "user", "content": [text_part("a"), text_part("sk")]}, REPLY]}, PAIR),
        ({"prompt": "ask", "completion": "reply"}, PAIR),
        ({"prompt": [USER], "completion": [REPLY]}, PAIR),
        ({"prompt": "ask", "completion": [REPLY]}, PAIR),
        ({"prompt": "ask", "response": "reply", "system_prompt": "be"}, LED),
        ({"question": "ask", "answer": "reply"}, PAIR),
        ({"question": "ask", "answers": ["reply", "other"]}, PAIR),
        ({"query": "ask", "response": "reply"}, PAIR),
        ({"input": "ask", "output": "reply"}, PAIR),
        ({"instruction": "ask", "context": "it", "response": "reply", "category": "qa"},
         [("user", "ask\n\nit"), ("assistant", "reply")]),
        ({"instruction": "ask", "context": "", "response": "reply", "category": "qa"}, PAIR),
        ({"messages": None, "instruction": "ask", "output": "reply"}, PAIR),
        ({"messages": [USER, REPLY], "instruction": None, "output": None}, PAIR),
        ({"prompt": "the first turn, kept as meta", "messages": [USER, REPLY]}, PAIR),
        ({"prompt": b"ask", "completion": b"reply"}, PAIR),
    ],
)  # fmt: skip
def test_every_format_becomes_messages(row: dict[str, Any], messages: list[tuple[str, str]]) -> None:
    assert turns(row) == messages


def test_text_is_kept_exactly() -> None:
    text = "  \ttwo\r\nlines\u2028 «né» 日本語 🙂 \x00 "
    rows = [
        {"instruction": text, "output": text},
        {"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": text}]},
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text}]},
        {"prompt": text, "completion": text},
        {"instruction": text, "context": None, "response": text},
    ]
    assert [turns(row) for row in rows] == [[("user", text), ("assistant", text)]] * 5


@pytest.mark.parametrize("spelling", ROLES)
def test_every_role_has_one_meaning(spelling: str) -> None:
    row = {"conversations": [{"from": spelling, "value": "x"}, USER, REPLY]}
    assert turns(row)[0] == (ROLES[spelling], "x")


def test_a_call_is_the_assistants_and_what_it_returns_is_the_tools() -> None:
    said = [("human", "ask"), ("function_call", "f(1)"), ("observation", "2"), ("gpt", "two")]
    row = {"conversations": [{"from": who, "value": what} for who, what in said], "tools": "[]"}
    assert [role for role, _ in turns(row)] == ["user", "assistant", "tool", "assistant"]
    assert example(row).meta == {"tools": "[]"}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": "plain"}, Reason.UNKNOWN_COLUMNS),
        ({}, Reason.UNKNOWN_COLUMNS),
        ({"instruction": "ask", "output": None}, Reason.NULL_CONTENT),
        ({"instruction": None, "output": "reply"}, Reason.NULL_CONTENT),
        ({"instruction": "ask", "output": float("nan")}, Reason.NULL_CONTENT),
        ({"messages": None}, Reason.NULL_CONTENT),
        ({"messages": [USER, {"role": "assistant", "content": None}]}, Reason.NULL_CONTENT),
        ({"messages": [USER, {"role": "assistant"}]}, Reason.NULL_CONTENT),
        ({"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}]}, Reason.TOOL_CALLS),
        ({"messages": [USER, {"role": "assistant", "content": "", "function_call": {"name": "f"}}]}, Reason.TOOL_CALLS),
        ({"messages": [USER, {"role": "narrator", "content": "x"}]}, Reason.UNKNOWN_ROLE),
        ({"messages": [USER, {"content": "x"}]}, Reason.UNKNOWN_ROLE),
        ({"messages": [USER, {"role": 3, "content": "x"}]}, Reason.UNKNOWN_ROLE),
        ({"messages": [USER, "reply"]}, Reason.MALFORMED),
        ({"messages": "no list"}, Reason.MALFORMED),
        ({"messages": "[broken"}, Reason.MALFORMED),
        ({"messages": {"role": "user"}}, Reason.MALFORMED),
        ({"instruction": "ask", "output": "reply", "history": [["one"]]}, Reason.MALFORMED),
        ({"instruction": "ask", "output": "reply", "history": "said before"}, Reason.MALFORMED),
        ({"instruction": "ask", "output": True}, Reason.NOT_TEXT),
        ({"instruction": "ask", "output": {"text": "x"}}, Reason.NOT_TEXT),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, REPLY]},
            Reason.NOT_TEXT,
        ),
        ({"prompt": b"\xff", "completion": "reply"}, Reason.INVALID_UTF8),
    ],
)
def test_a_bad_row_is_refused_with_its_reason(row: dict[str, Any], expected: Reason) -> None:
    assert reason(row) is expected


def test_details_are_short_and_storable() -> None:
    refused = interpret({"messages": [{"role": "\ud800" + "x" * 5000, "content": "y"}]})
    assert isinstance(refused, Refused)
    assert len(refused.detail) <= 200
    refused.detail.encode("utf-8")


def test_other_columns_become_meta_and_a_meta_column_is_spread() -> None:
    row = {
        "instruction": "ask", "input": "it", "output": "reply", "id": 7, "tags": ["a", {"b": [1, None]}], "gone": None,
        "meta": '{"skill": "math", "id": "loses", "none": null}', "": "unnamed",
    }  # fmt: skip
    assert example(row).meta == {"id": 7, "tags": ["a", {"b": [1, None]}], "skill": "math", "input": "it"}
    assert example({**row, "meta": "only text"}).meta["meta"] == "only text"
    assert example({**row, "meta": {"skill": "math"}}).meta["skill"] == "math"


def test_meta_holds_what_json_can_hold_and_the_rest_is_dropped_by_name() -> None:
    interpreter = Interpreter("label")
    nested: list[Any] = []
    for _ in range(5000):
        nested = [nested]
    found = interpreter(
        {
            "prompt": "a", "completion": "b", "nan": float("nan"), "day": datetime.date(2024, 5, 1),
            "price": decimal.Decimal("1.50"), "inner": {"x": (1, float("inf"))}, "raw": b"\x00", "deep": nested,
        }
    )  # fmt: skip
    assert isinstance(found, Example)
    assert found.meta == {"nan": None, "day": "2024-05-01", "price": "1.50", "inner": {"x": [1, None]}}
    assert [note.split(":")[0] for note in interpreter.notes] == ["column 'raw' dropped", "column 'deep' dropped"]


def test_fields_of_a_turn_that_are_left_out_are_noted_once() -> None:
    interpreter = Interpreter("label")
    for _ in range(3):
        interpreter({"messages": [USER | {"weight": 0, "name": None}, REPLY]})
    assert list(interpreter.notes) == ["turn field 'weight' dropped"]


@pytest.mark.parametrize(
    ("columns", "source"),
    [
        ({"source": "s"}, "s"),
        ({"Dataset": "d"}, "d"),
        ({"data_source": "x"}, "x"),
        ({"source": "s", "dataset": "d"}, "s"),
        ({"source": ""}, "label"),
        ({"source": None}, "label"),
        ({}, "label"),
    ],
)
def test_a_row_names_its_source_or_takes_the_files(columns: dict[str, Any], source: str) -> None:
    assert example({"prompt": "a", "completion": "b", **columns}).source == source


def test_an_id_is_one_value_as_text() -> None:
    interpreter = Interpreter("label")
    ids = [1, "1", "x", None, "", ["a"], 1.5]
    assert [interpreter.identity({"ID": value}) for value in ids] == ["1", "1", "x", None, None, None, None]
    assert interpreter.identity({"other": 1}) is None


def test_an_error_can_list_every_format() -> None:
    assert [line.split(":")[0].strip() for line in known_formats().splitlines()[1:]] == [f.name for f in FORMATS]
    assert "alpaca: instruction and output" in known_formats()
    assert recognise(("text", "label")).layouts == ()


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ({"prompt": "a", "kwargs": []}, ["a"]),
        ({"instruction": "a", "input": "b"}, ["a\n\nb"]),
        ({"input": "a"}, ["a"]),
        ({"Question": "a", "context": "b", "system": "c"}, ["c", "a\n\nb"]),
        ({"prompt": [{"role": "user", "content": "a"}]}, ["a"]),
        ({"prompt": "a", "completion": "b"}, ["a", "b"]),
        ({"prompt": "a", "completion": None}, ["a"]),
    ],
)
def test_a_prompt_alone_is_a_row_of_a_test_set(row: dict[str, Any], turns: list[str]) -> None:
    found = Interpreter("label", unanswered=True)(row)
    assert isinstance(found, Example)
    assert [message.content for message in found.messages] == turns
    alone = Interpreter("label")(row)
    assert isinstance(alone, Example) is (row.get("completion") == "b")


PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name",
    [
        *(known.name for known in formats(unanswered=True)),
        *(name for known in formats(True) for names in known.required.values() for name in names),
        *(name for known in formats(True) for names in known.optional.values() for name in names),
        *ROLES, *SOURCE_COLUMNS, *map(str, Reason), *KINDS, *COMPRESSIONS, *SUFFIXES, *EXPORTED,
    ],
)  # fmt: skip
def test_the_page_names_it(name: str) -> None:
    assert f"`{name}`" in PAGE or f"{name}`" in PAGE
