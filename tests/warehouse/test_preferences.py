"""Preference pairs: every layout of columns, every reason, and the file that a trainer is given."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warehouse.errors import InputError
from warehouse.pair_files import content_of, probe_pairs, read_pairs, write_pairs
from warehouse.preferences import NoPair, Pair, PairInterpreter
from warehouse.records import Message
from warehouse.sources import locate

ASKED = "What is 1 plus 2?"
GOOD, BAD = "It is 3.", "It is 4."


def turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


USER = turn("user", ASKED)
CHOSEN, REJECTED = turn("assistant", GOOD), turn("assistant", BAD)
HH = f"\n\nHuman: {ASKED}\n\nAssistant:"
LAYOUTS: dict[str, dict[str, Any]] = {
    "texts": {"prompt": ASKED, "chosen": GOOD, "rejected": BAD},
    "turns": {"prompt": [USER], "chosen": [CHOSEN], "rejected": [REJECTED]},
    "text and turns": {"prompt": ASKED, "chosen": [CHOSEN], "rejected": [REJECTED]},
    "ultrafeedback": {
        "prompt": ASKED, "prompt_id": "x", "chosen": [USER, CHOSEN], "rejected": [USER, REJECTED],
        "messages": [USER, CHOSEN], "score_chosen": 8.0,
    },
    "conversations alone": {"chosen": [USER, CHOSEN], "rejected": [USER, REJECTED]},
    "hh": {"chosen": f"{HH} {GOOD}", "rejected": f"{HH} {BAD}"},
    "hh prompt": {"prompt": HH, "chosen": f" {GOOD}", "rejected": BAD},
    "sharegpt": {
        "conversations": [{"from": "human", "value": ASKED}],
        "chosen": {"from": "gpt", "value": GOOD},
        "rejected": {"from": "gpt", "value": BAD},
    },
    "alpaca": {"instruction": ASKED, "input": "", "chosen": GOOD, "rejected": BAD},
    "orca": {"question": ASKED, "chosen": GOOD, "rejected": BAD},
    "json in text": {"Prompt": ASKED, "Chosen": json.dumps([USER, CHOSEN]), "Rejected": json.dumps([USER, REJECTED])},
    "letters": {"prompt": ASKED, "response_a": BAD, "response_b": GOOD, "label": "b"},
    "letters of models": {"prompt": ASKED, "response_a": GOOD, "response_b": BAD, "label": "model_a"},
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_the_same_pair(name: str) -> None:
    pair = PairInterpreter("file")(LAYOUTS[name])
    assert isinstance(pair, Pair)
    assert [(m.role, m.content) for m in pair.prompt] == [("user", ASKED)]
    assert (pair.chosen.strip(), pair.rejected.strip(), pair.source) == (GOOD, BAD, "file")
    assert pair.pair_id == Pair((Message("user", ASKED),), GOOD, BAD, "elsewhere").pair_id


def test_what_belongs_to_the_prompt() -> None:
    talk = [turn("system", "Be brief."), USER, CHOSEN, turn("user", "Sure?")]
    row = {"chosen": [*talk, turn("assistant", "Yes.")], "rejected": [*talk, turn("assistant", "No.")], "rank": 2}
    pair = PairInterpreter("file")(row)
    assert isinstance(pair, Pair)
    assert [m.role for m in pair.prompt] == ["system", "user", "assistant", "user"]
    assert pair.meta == {"rank": 2}
    with_system = PairInterpreter("file")(LAYOUTS["orca"] | {"system": "Be brief."})
    assert isinstance(with_system, Pair)
    assert with_system.prompt[0] == Message("system", "Be brief.")
    given_input = PairInterpreter("file")(LAYOUTS["alpaca"] | {"input": "Numbers."})
    assert isinstance(given_input, Pair)
    assert given_input.prompt == (Message("user", f"{ASKED}\n\nNumbers."),)


PLAIN = LAYOUTS["texts"]
REFUSED: dict[str, list[dict[str, Any]]] = {
    "unknown_columns": [{"prompt": ASKED, "completion": GOOD}],
    "null_content": [PLAIN | {"chosen": None}, PLAIN | {"rejected": None}, PLAIN | {"prompt": None}],
    "same_replies": [PLAIN | {"rejected": f"{GOOD} "}, LAYOUTS["letters"] | {"response_a": GOOD}],
    "empty_reply": [PLAIN | {"chosen": ""}, LAYOUTS["turns"] | {"rejected": [turn("assistant", " ")]}],
    "no_common_prompt": [
        {"chosen": [USER, CHOSEN], "rejected": [turn("user", "Else?"), REJECTED]},
        {"chosen": GOOD, "rejected": BAD},
        {"chosen": [USER, CHOSEN, turn("user", "a"), CHOSEN], "rejected": [USER, CHOSEN, turn("user", "b"), CHOSEN]},
        {"chosen": [USER, CHOSEN], "rejected": [USER, CHOSEN, USER, REJECTED]},
    ],
    "several_turns": [{"chosen": [USER, CHOSEN, USER, CHOSEN], "rejected": [USER, REJECTED]}],
    "unknown_role": [LAYOUTS["turns"] | {"chosen": [turn("narrator", "x")]}],
    "no_user_turn": [PLAIN | {"prompt": "  "}],
    "no_preference": [LAYOUTS["letters"] | {"label": label} for label in ("tie", None, "c")],
    "not_text": [PLAIN | {"chosen": True}],
    "lone_surrogate": [PLAIN | {"chosen": "\ud800"}],
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_no_pair_says_why(reason: str) -> None:
    found = [PairInterpreter("file")(row) for row in REFUSED[reason]]
    assert [none.reason if isinstance(none, NoPair) else none for none in found] == [reason] * len(found)


words = st.text(min_size=1, max_size=20).filter(str.strip)


@given(words, words, words)
def test_any_text_comes_back(prompt: str, chosen: str, rejected: str) -> None:
    """A pair stays a pair with replies exchanged, and no text is taken for anything but itself."""
    rows = [{"prompt": [turn("user", prompt)], "chosen": c, "rejected": r}
            for c, r in ((chosen, rejected), (rejected, chosen))]  # fmt: skip
    pairs = [PairInterpreter("file")(row) for row in rows]
    if isinstance(pairs[0], NoPair):
        assert isinstance(pairs[1], NoPair)
        assert pairs[0].reason == pairs[1].reason in ("same_replies", "lone_surrogate")
        return
    assert isinstance(pairs[1], Pair)
    assert (pairs[0].chosen, pairs[0].rejected) == (pairs[1].rejected, pairs[1].chosen) == (chosen, rejected)
    assert pairs[0].prompt == (Message("user", prompt),)
    assert pairs[0].pair_id != pairs[1].pair_id


@pytest.mark.parametrize("text", ["Human: hi", "[1, 2]", '{"role": "user"}', '{"from": "x"}', "[", "\n\nAssistant: x"])
def test_replies_that_look_like_something_else_are_text(text: str) -> None:
    pair = PairInterpreter("file")(PLAIN | {"chosen": text})
    assert isinstance(pair, Pair)
    assert pair.chosen == text


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_files_of_every_kind_are_the_same_data(tmp_path: Path) -> None:
    rows = [PLAIN | {"chosen": f"It is {i}."} for i in range(5)]  # one of them is the rejected reply
    lines = write_lines(tmp_path / "a.jsonl", rows)
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    made = {path.suffix: write_pairs([locate(str(path))], tmp_path / path.suffix[1:])
            for path in (lines, tmp_path / "a.json", tmp_path / "a.parquet")}  # fmt: skip
    assert len({dataset.key for dataset, _ in made.values()}) == 1
    for dataset, funnel in made.values():
        assert (funnel.rows_in, funnel.rows_out, funnel.dropped) == (5, 4, {"same_replies": 1})
        assert dataset.kind == "preference"
        table = pq.read_table(dataset.path)
        assert table["chosen"].to_pylist() == [[turn("assistant", f"It is {i}.")] for i in (0, 1, 2, 3)]
        assert table["prompt"].to_pylist() == [[USER]] * 4
        assert set(table["source"].to_pylist()) == {"a"}
    rejects = pq.read_table(tmp_path / "jsonl" / "rejects-0.parquet").to_pylist()
    assert [(r["location"], r["reason"]) for r in rejects] == [("a.jsonl:5", "same_replies")]


def test_windows_and_keys(tmp_path: Path) -> None:
    source = locate(str(write_lines(tmp_path / "a.jsonl", [PLAIN | {"prompt": f"{i}?"} for i in range(6)])))
    part = replace(source, skip=1, limit=3)
    assert [pair.prompt[0].content for _, pair in read_pairs(part) if isinstance(pair, Pair)] == ["1?", "2?", "3?"]
    assert len({content_of(source), content_of(part), content_of(replace(source, limit=3))}) == 3
    keys = [write_pairs(sources, tmp_path / name)[0].key for name, sources in (("w", [source]), ("p", [part]))]
    assert keys[0] != keys[1]


def test_files_without_pairs_stop_the_work(tmp_path: Path) -> None:
    chat = locate(str(write_lines(tmp_path / "chat.jsonl", [{"messages": [USER, CHOSEN]}])))
    with pytest.raises(InputError, match=r"found messages.*chosen and rejected"):
        probe_pairs(chat)
    same = locate(str(write_lines(tmp_path / "same.jsonl", [PLAIN | {"rejected": GOOD}])))
    probe_pairs(same)
    with pytest.raises(InputError, match=r"no row of .*same\.jsonl is a pair \(same_replies 1\)"):
        write_pairs([same], tmp_path / "out")


def test_a_broken_line_is_a_reject(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [PLAIN])
    path.write_text(path.read_text() + "{broken\n", encoding="utf-8")
    _, funnel = write_pairs([locate(str(path))], tmp_path / "out")
    assert funnel.dropped == {"malformed": 1}
