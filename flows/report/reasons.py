"""Reasons in words: a method says why it took a row as `name=value` pairs, as in `target=17 task=gsm8k round=3`."""

import re
from collections.abc import Mapping

from flows.report.text import count, label

_PAIR = re.compile(r"(\w+)=(.*?)(?=\s+\w+=|$)", re.DOTALL)


def parsed(reason: str) -> dict[str, str]:
    """The pairs of a reason; a value may hold spaces."""
    return {name: value.strip() for name, value in _PAIR.findall(reason)}


def target_row(reason: str) -> int | None:
    """The row of the target set that the reason names."""
    value = parsed(reason).get("target", "")
    return int(value) if value.isdecimal() and len(value) < 19 else None


def in_words(reason: str) -> str:
    """One sentence; a reason of unknown shape is repeated as it is."""
    pairs = parsed(reason)
    filled = _filled(pairs.pop("filled", None))
    for named, sentence in _SENTENCES:
        if set(named) <= pairs.keys():
            rest = {name: value for name, value in pairs.items() if name not in named}
            return sentence.format(**{name: _value(pairs[name]) for name in named}) + _rest(rest) + filled
    return (_rest(pairs) + filled).strip() or label(reason) or "The method gives no reason."


_SENTENCES = (
    (
        ("target", "task", "gain", "round"),
        "In round {round} it added {gain} to how well the targets are covered, the most of all; the nearest is target "
        "{target} of task {task}.",
    ),
    (
        ("target", "task", "probability"),
        "It was drawn with probability {probability}; the target nearest to it is number {target}, of task {task}.",
    ),
    (
        ("target", "task", "round"),
        "In round {round}, target {target} of task {task} took this row: the nearest one left.",
    ),
    (("target", "round"), "In round {round}, target {target} took this row: the nearest one left."),
    (("target", "task"), "The target nearest to it is number {target}, of task {task}."),
    (("target",), "The target nearest to it is number {target}."),
    (
        ("instruction", "replies", "logprob", "tokens"),
        "Of {replies} replies to instruction {instruction} the model likes this one best of those left: its {tokens} "
        "tokens have a mean log-probability of {logprob}.",
    ),
    (("task", "round", "words"), "In round {round} task {task} drew this row of {words} words by its importance."),
    (("words",), "It has {words} words."),
    (
        ("nll", "nll_alone"),
        "A token of its reply costs the model {nll} nats with the prompt and {nll_alone} without it.",
    ),
    (("nll", "tokens"), "A token of its reply of {tokens} tokens costs the model {nll} nats."),
    (
        ("product", "complexity", "quality"),
        "The scorers' marks over its turns: complexity {complexity}, quality {quality}, their products {product}.",
    ),
    (("distance",), "It was the farthest from all rows taken before: its nearest was {distance} away."),
    (
        ("cluster", "degradation", "tokens"),
        "It repairs most for its {tokens} tokens in cluster {cluster}: {degradation} nats.",
    ),
    (("cluster", "cosine"), "It stands for cluster {cluster}: its cosine with the centre is {cosine}."),
    (("cluster", "similarity"), "It stands for cluster {cluster}: its cosine with the centre is {similarity}."),
    (("gain", "round"), "In round {round} it added {gain} to how well the pool is covered, the most of all."),
    (
        ("similarity", "noise_sd"),
        "Its similarity to the private release is {similarity}, with noise of standard deviation {noise_sd}.",
    ),
    (
        ("source", "share", "group"),
        "Source {source} of group {group} has a share of {share}; the row was drawn at random.",
    ),
    (("source", "share"), "Source {source} has a share of {share}; the row was drawn at random."),
    (
        ("source", "task_score", "round"),
        "In round {round} it was the turn of source {source}, whose score as a task is {task_score}; drawn at random.",
    ),
    (("length", "unit"), "It is {length} {unit} long; this method takes the longest rows."),
    (("round", "source"), "In round {round} it was the turn of source {source}, which gave a row drawn at random."),
    (("draw",), "Draw {draw} of a random order; its content played no part."),
)


_FILLED = {
    "no_reply": "it has no reply",
    "cut": "it was cut to the model's length",
    "short": "it is too short to be judged",
    "long": "its reply is too long",
    "repetitive": "its reply repeats itself",
    "duplicate": "the same reply was ranked already",
    "only_reply": "it is the only reply to its instruction",
    "ifd_1_or_more": "its prompt makes the reply harder, not easier",
    "no_ratio": "its difficulty has no ratio",
    "similar": "a better row that was taken is very like it",
    "no_direction": "its vector has length 0",
    "no_gain": "it covers nothing that is not covered",
    "probability_0": "the transport plan gives it no mass",
    "inconsistent": "its concepts disagree with those of rows taken before",
    "next_task": "the tasks before its own had run out of rows",
    "cluster_of_share_0": "its cluster has no share",
}


def _filled(why: str | None) -> str:
    return "" if why is None else f" It only fills the budget: {_FILLED.get(why, label(why))}."


def _value(value: str) -> str:
    return count(int(value)) if value.isdecimal() and 4 < len(value) < 19 else label(value)


def _rest(pairs: Mapping[str, str]) -> str:
    turn = f" That was round {_value(pairs['round'])}." if "round" in pairs else ""
    pairs = {name: value for name, value in pairs.items() if name != "round"}
    told = ", ".join(f"{label(name)} is {_value(value)}" for name, value in pairs.items())
    return turn + (f" The method also notes: {told}." if told else "")
