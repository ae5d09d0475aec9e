"""The row guard: what is refused, and what truncation costs."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.tokens import load_tokenizer
from training import guard as guarding
from training.guard import IGNORED, REASONS, Guarded, fault, guard
from warehouse.errors import InputError

ROW = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def turn(role: str, content: str | None) -> dict[str, Any]:
    return {"role": role, "content": content}


GOOD = [turn("user", "What is 1 plus 2?"), turn("assistant", "The answer is 3.")]
BAD: dict[str, list[list[dict[str, Any]] | None]] = {
    "no_assistant_turn": [[turn("user", "hello")], [], None],
    "null_content": [[turn("user", None), turn("assistant", "x")], [turn("user", "x"), turn("assistant", None)]],
    "unknown_role": [[turn("human", "x"), turn("assistant", "y")]],
    "empty_reply": [[turn("user", "x"), turn("assistant", " \n")]],
    "no_label_tokens": [[turn("user", "What is 12 plus 30? " * 40), turn("assistant", "The answer is 42.")]],
}


def guarded(tmp_path: Path, model: Path, rows: list[Any], max_length: int = 128) -> Guarded:
    pq.write_table(pa.table({"messages": pa.array(rows, ROW)}), tmp_path / "rows.parquet")
    tokenizer, chat = load_tokenizer(model)
    return guard(tmp_path / "rows.parquet", tokenizer, chat, max_length)


@pytest.mark.parametrize("reason", REASONS)
def test_bad_rows_are_rejected_with_their_reason(tmp_path: Path, tiny_model_dir: Path, reason: str) -> None:
    bad = BAD[reason]
    found = guarded(tmp_path, tiny_model_dir, [GOOD, *bad, GOOD])
    assert found.rejected[reason] == tuple(range(1, 1 + len(bad)))
    assert found.numbers.tolist() == [0, 1 + len(bad)]
    assert found.funnel() == {"rows_in": 2 + len(bad), "kept": 2} | dict.fromkeys(REASONS, 0) | {reason: len(bad)}


def test_labels_are_exactly_the_replies_and_their_end_tokens(tmp_path: Path, tiny_model_dir: Path) -> None:
    talk = [turn("system", "Be brief."), *GOOD, turn("user", "Sure?"), turn("assistant", "Yes.")]
    found = guarded(tmp_path, tiny_model_dir, [talk])
    labels = np.array(found.table["labels"][0].as_py())
    tokenizer, chat = load_tokenizer(tiny_model_dir)
    text = tokenizer.decode(labels[labels != IGNORED].tolist(), skip_special_tokens=False)
    assert text == f"The answer is 3.{chat.eos}Yes.{chat.eos}"
    assert found.label_tokens.tolist() == [int((labels != IGNORED).sum())]
    assert found.table["rows"][0].as_py() == [0] * len(labels)


def test_what_truncation_takes_away_is_counted(tmp_path: Path, tiny_model_dir: Path) -> None:
    whole = guarded(tmp_path, tiny_model_dir, [GOOD, GOOD])
    length, labels = int(whole.lengths[0]), int(whole.label_tokens[0])
    assert whole.share_lost == 0
    assert whole.cut == 0
    cut = guarded(tmp_path, tiny_model_dir, [GOOD, GOOD], length - 2)
    assert (cut.cut, cut.lost, cut.label_tokens.tolist()) == (2, 4, [labels - 2, labels - 2])
    assert cut.share_lost == pytest.approx(2 / labels)
    assert cut.lengths.tolist() == [length - 2] * 2


def test_blocks_do_not_show(tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [GOOD, *BAD["empty_reply"], GOOD, *BAD["unknown_role"], GOOD]
    whole = guarded(tmp_path, tiny_model_dir, rows)
    monkeypatch.setattr(guarding, "BLOCK_ROWS", 2)
    blocks = guarded(tmp_path, tiny_model_dir, rows)
    assert blocks.table.to_pydict() == whole.table.to_pydict()
    assert blocks.rejected == whole.rejected


def test_nothing_left_is_an_input_error(tmp_path: Path, tiny_model_dir: Path) -> None:
    with pytest.raises(InputError, match=r"no row is left to train on; rejected: 3 no_assistant_turn, 1 empty_reply"):
        guarded(tmp_path, tiny_model_dir, BAD["no_assistant_turn"] + BAD["empty_reply"])
    with pytest.raises(InputError, match=r"the file is empty$"):
        guarded(tmp_path, tiny_model_dir, [])


def test_where_no_reply_begins_in_time_the_length_that_would_do_is_said(tmp_path: Path, tiny_model_dir: Path) -> None:
    label = guarded(tmp_path, tiny_model_dir, [GOOD]).table["labels"][0].as_py()
    needed = next(place for place, each in enumerate(label) if each != IGNORED) + 1
    with pytest.raises(InputError) as refused:
        guarded(tmp_path, tiny_model_dir, [BAD["no_assistant_turn"][0], GOOD, GOOD], needed - 1)
    assert str(refused.value) == (
        "no row is left to train on; rejected: 1 no_assistant_turn, 2 no_label_tokens; no reply begins within "
        f"max_length, {needed - 1} tokens: raise it to {needed} or more"
    )
    assert guarded(tmp_path, tiny_model_dir, [GOOD], needed).label_tokens.tolist() == [1]


def test_other_files_are_refused(tmp_path: Path, tiny_model_dir: Path) -> None:
    tokenizer, chat = load_tokenizer(tiny_model_dir)
    with pytest.raises(InputError, match="no such file"):
        guard(tmp_path / "none.parquet", tokenizer, chat, 64)
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "text.parquet")
    with pytest.raises(InputError, match="found columns text; expected a `messages` column"):
        guard(tmp_path / "text.parquet", tokenizer, chat, 64)


roles = st.sampled_from(["user", "assistant", "system", "tool", "human", None])
turns = st.fixed_dictionaries({"role": roles, "content": st.one_of(st.none(), st.text(max_size=5))})


@given(st.lists(turns, max_size=4))
def test_a_row_without_fault_can_be_trained_on(row: list[dict[str, Any]]) -> None:
    found = fault(row)
    assert found is None or found in REASONS
    if found is None:
        assert all(turn["content"] is not None for turn in row)
        assert any(turn["role"] == "assistant" and turn["content"].strip() for turn in row)
