"""The pair guard: where a prompt ends, what is refused, and what truncation costs."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pair_rows import polite, turn, write_pairs

from models.tokens import load_tokenizer
from training.guard import Guarded
from training.preferences import REASONS, guard_pairs
from warehouse.errors import InputError

GOOD = {
    "prompt": [turn("user", "What is 1 plus 2?")],
    "chosen": [turn("assistant", "The answer is 3.")],
    "rejected": [turn("assistant", "3.")],
}
LONG = [turn("user", "What is 12 plus 30? " * 40)]
BAD: dict[str, list[dict[str, Any]]] = {
    "null_content": [GOOD | {"chosen": [turn("assistant", None)]}, GOOD | {"prompt": [turn("user", None)]}],
    "unknown_role": [GOOD | {"prompt": [turn("human", "x")]}, GOOD | {"rejected": [turn("user", "x")]}],
    "no_prompt": [GOOD | {"prompt": None}, GOOD | {"prompt": [turn("system", "x")]}],
    "empty_reply": [GOOD | {"chosen": []}, GOOD | {"rejected": [turn("assistant", " \n")]}],
    "same_replies": [GOOD | {"rejected": [turn("assistant", "The answer is 3. ")]}],
    "no_label_tokens": [GOOD | {"prompt": LONG}],
}


def guarded(tmp_path: Path, model: Path, rows: list[dict[str, Any]], max_length: int = 128) -> Guarded:
    tokenizer, chat = load_tokenizer(model)
    return guard_pairs(write_pairs(tmp_path / "pairs.parquet", rows).path, tokenizer, chat, max_length)


@pytest.mark.parametrize("reason", REASONS)
def test_bad_pairs_are_rejected_with_their_reason(tmp_path: Path, tiny_model_dir: Path, reason: str) -> None:
    bad = BAD[reason]
    found = guarded(tmp_path, tiny_model_dir, [GOOD, *bad, GOOD])
    assert found.rejected[reason] == tuple(range(1, 1 + len(bad)))
    assert found.numbers.tolist() == [0, 1 + len(bad)]
    assert found.funnel() == {"rows_in": 2 + len(bad), "kept": 2} | dict.fromkeys(REASONS, 0) | {reason: len(bad)}


def test_only_the_last_reply_is_learnt(tmp_path: Path, tiny_model_dir: Path) -> None:
    talk = [turn("system", "Be brief."), turn("user", "Hello"), turn("assistant", "Hi."), *GOOD["prompt"]]
    row = guarded(tmp_path, tiny_model_dir, [GOOD | {"prompt": talk}]).table.to_pylist()[0]
    tokenizer, chat = load_tokenizer(tiny_model_dir)
    prompt = tokenizer.decode(row["input_ids"][: row["prompt"]], skip_special_tokens=False)
    assert prompt.endswith("<|assistant|>\n")
    assert "Hi." in prompt
    for name, text in {"input_ids": "The answer is 3.", "rejected_ids": "3."}.items():
        assert row[name][: row["prompt"]] == row["input_ids"][: row["prompt"]]
        assert tokenizer.decode(row[name][row["prompt"] :], skip_special_tokens=False) == f"{text}{chat.eos}"


def test_what_truncation_takes_away_is_counted(tmp_path: Path, tiny_model_dir: Path) -> None:
    whole = guarded(tmp_path, tiny_model_dir, [GOOD, GOOD])
    row = whole.table.to_pylist()[0]
    long, short = len(row["input_ids"]), len(row["rejected_ids"])
    assert whole.lengths.tolist() == [long + short] * 2
    assert whole.label_tokens.tolist() == [long + short - 2 * row["prompt"]] * 2
    assert (whole.cut, whole.lost, whole.share_lost) == (0, 0, 0)
    cut = guarded(tmp_path, tiny_model_dir, [GOOD, GOOD], long - 2)
    assert (cut.cut, cut.lost, cut.lengths.tolist()) == (2, 4, [long - 2 + short] * 2)
    assert cut.share_lost == pytest.approx(2 / whole.label_tokens[0])


def test_replies_that_are_the_same_once_cut_are_no_pair(tmp_path: Path, tiny_model_dir: Path) -> None:
    begun = "The answer is " * 20
    row = GOOD | {"chosen": [turn("assistant", f"{begun}3.")], "rejected": [turn("assistant", f"{begun}4.")]}
    assert guarded(tmp_path, tiny_model_dir, [row]).numbers.tolist() == [0]
    said = r"rejected: 1 same_replies; within max_length, 40 tokens, no two replies differ: raise it$"
    with pytest.raises(InputError, match=said):
        guarded(tmp_path, tiny_model_dir, [row], 40)


def test_lengths_and_rows_of_many(tmp_path: Path, tiny_model_dir: Path) -> None:
    found = guarded(tmp_path, tiny_model_dir, polite(20))
    assert found.table["row"].to_pylist() == list(range(20))
    both = [
        len(a) + len(b)
        for a, b in zip(*(found.table[n].to_pylist() for n in ("input_ids", "rejected_ids")), strict=True)
    ]
    np.testing.assert_array_equal(found.lengths, both)


def test_files_that_hold_no_pairs_are_named(tmp_path: Path, tiny_model_dir: Path) -> None:
    tokenizer, chat = load_tokenizer(tiny_model_dir)
    with pytest.raises(InputError, match="there is no such file"):
        guard_pairs(tmp_path / "none.parquet", tokenizer, chat, 64)
    pq.write_table(pa.table({"messages": [[turn("user", "x")]]}), tmp_path / "chat.parquet")
    with pytest.raises(InputError, match=r"found columns messages \(list.*expected prompt, chosen, rejected"):
        guard_pairs(tmp_path / "chat.parquet", tokenizer, chat, 64)
    pq.write_table(pa.table({"prompt": ["x"], "chosen": ["y"], "rejected": ["z"]}), tmp_path / "texts.parquet")
    with pytest.raises(InputError, match=r"prompt \(string\).*as lists of turns"):
        guard_pairs(tmp_path / "texts.parquet", tokenizer, chat, 64)
