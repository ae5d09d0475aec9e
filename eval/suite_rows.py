"""Our rows as a task of lm-eval in memory, and what lm-eval found as our item rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from string import ascii_uppercase
from typing import Any

import numpy as np

from eval.calibration import brier_score
from eval.items import ItemRow, item_rows
from eval.likelihoods import softmax
from eval.protocol import Item, Score
from warehouse.errors import InputError
from warehouse.records import Example, Message

OWN = "test_rows"
VALUES = {"exact_match": "exact_match", "acc": "accuracy", "acc_norm": "accuracy_norm", "f1": "f1"}
"""lm-eval's per-item metrics that have a meaning here, under the names they have here."""

Sample = Mapping[str, Any]  # what lm-eval logs of one item


def own_task(items: Sequence[Item], max_tokens: int) -> dict[str, Any]:
    """An lm-eval task of our items, in memory: a choice where they have choices, else the exact match of a reply."""
    documents = [_document(item) for item in items]

    def dataset(**_: Any) -> dict[str, Any]:
        from datasets import Dataset

        return {"test": Dataset.from_list(documents)}

    return {
        "task": OWN,
        "custom_dataset": dataset,
        "test_split": "test",
        "description": "system",
        "doc_to_text": "question",
        "target_delimiter": "",  # a template ends where the reply begins
        "metadata": {"version": 1},
    } | (_by_choice() if items[0].choices else _by_reply(max_tokens))


def _by_reply(max_tokens: int) -> dict[str, Any]:
    return {
        "output_type": "generate_until",
        "doc_to_target": "gold",
        "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": max_tokens},
        "filter_list": [{"name": "none", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}],
        "metric_list": [_metric("exact_match")],
    }


def _by_choice() -> dict[str, Any]:
    return {
        "output_type": "multiple_choice",
        "doc_to_choice": "choices",
        "doc_to_target": "label",
        "metric_list": [_metric("acc"), _metric("acc_norm")],
    }


def _metric(name: str) -> dict[str, Any]:
    return {"metric": name, "aggregation": "mean", "higher_is_better": True}


def _document(item: Item) -> dict[str, Any]:
    """An item as lm-eval reads it: one question, a system text or none."""
    prompt = item.prompt
    system, asked = (prompt[0].content, prompt[1:]) if prompt[0].role == "system" else ("", prompt)
    if [turn.role for turn in asked] != ["user"]:
        raise InputError(
            f"test row {item.item_id} has {len(asked)} turns before its reply; lm-eval asks one question per item: "
            "use the task `exact_match` or `choice`"
        )
    known = {"item": item.item_id, "system": system, "question": asked[0].content, "gold": item.gold.strip()}
    if not item.choices:
        return known
    return known | {"choices": list(item.choices), "label": item.choices.index(item.gold)}


def rows_of(name: str, samples: Sequence[Sample], items: Mapping[str, Item]) -> Iterator[ItemRow]:
    """The item rows of one task of lm-eval; those of `items` (by id) pair with our own tasks on the same rows.

    Items of other tasks keep lm-eval's hashes of document, prompt and target.
    """
    for sample in samples:
        values = _values(sample)
        own = items.get(str(sample["doc"].get("item")))
        score = _score(sample, values)
        if own is not None:
            yield from item_rows(own, score)
            continue
        hashes = {name: sample[name] for name in ("doc_hash", "prompt_hash", "target_hash")}
        yield from (replace(row, **hashes) for row in item_rows(_foreign(name, sample), score))


def _foreign(name: str, sample: Sample) -> Item:
    """An item of a task that is lm-eval's own; its prompt is the text that the model was given."""
    asked = (Message("user", sample["arguments"][0][0]),)
    gold = _gold(sample)
    example = Example((*asked, Message("assistant", gold)), name)
    return Item(f"{name}-{sample['doc_id']}", example, asked, gold, choices=_choices(sample))


def _score(sample: Sample, values: Mapping[str, float]) -> Score:
    """Of a choice, the reply is the likeliest choice, as the task `choice` tells it."""
    choices = _choices(sample)
    if not choices:
        return Score(values, sample["resps"][0][0], str(sample["filtered_resps"][0]))
    sums = _sums(sample)
    best = int(sums.argmax())
    detail = {"logprobs": sums.tolist(), "chosen": best}
    return Score(values, choices[best], ascii_uppercase[best] if best < len(ascii_uppercase) else None, detail)


def _values(sample: Sample) -> dict[str, float]:
    """lm-eval's values that are one number per item, and for choices what shows where accuracy stands still."""
    numbers = {ours: sample[theirs] for theirs, ours in VALUES.items() if theirs in sample["metrics"]}
    found = {name: float(value) for name, value in numbers.items() if isinstance(value, int | float | np.number)}
    target = sample["target"]
    if not (choices := _choices(sample)) or not isinstance(target, int) or not 0 <= target < len(choices):
        return found
    chances = softmax(_sums(sample))
    brier = float(brier_score(chances[None], np.array([target]))[0])
    return found | {"p_correct": float(chances[target]), "brier": brier, "confidence": float(chances.max())}


def _choices(sample: Sample) -> tuple[str, ...]:
    """The texts whose likelihoods were compared; () where the reply was free."""
    if not isinstance(sample["filtered_resps"][0], tuple):
        return ()
    return tuple(arguments[1] for arguments in sample["arguments"])


def _sums(sample: Sample) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([loglikelihood for loglikelihood, _ in sample["filtered_resps"]], np.float64)


def _gold(sample: Sample) -> str:
    target, choices = sample["target"], _choices(sample)
    return choices[target] if isinstance(target, int) and 0 <= target < len(choices) else str(target)
