"""Where an item says what is right: its meta, else its last assistant turn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from warehouse.errors import InputError
from warehouse.records import Example, Messages


@dataclass(frozen=True, slots=True)
class Reference:
    """What an item holds for a verifier.

    answers     stated answers, compared whole: meta `answer` (a text or a number) and meta `aliases` (a list of texts)
    gold_reply  the last turn, if it is the assistant's, else "": where no answer is stated, it is looked for in here
    choices     (label, text) of each option: meta `choices`, a mapping from label to text, or a list (labels A, B, ...)
    tests       meta `tests`, Python source that is run after the code of a reply: one text, or a list of them
    setup       meta `test_setup`, Python source that is run before the tests, "" where there is none
    """

    answers: tuple[str, ...] = ()
    gold_reply: str = ""
    choices: tuple[tuple[str, str], ...] = ()
    tests: tuple[str, ...] = ()
    setup: str = ""


def reference_of(item: Example) -> Reference:
    """The reference of `item`; fields that it does not have are empty. Raises `InputError` for meta of a wrong type."""
    meta = item.meta
    last = item.messages[-1] if item.messages else None
    stated = [_text("answer", meta["answer"])] if meta.get("answer") is not None else []
    aliases = [_text("aliases", alias) for alias in _listed("aliases", meta.get("aliases"))]
    return Reference(
        answers=tuple(text for text in (*stated, *aliases) if text.strip()),
        gold_reply=last.content if last is not None and last.role == "assistant" else "",
        choices=_choices(meta.get("choices")),
        tests=tuple(_text("tests", test) for test in _listed("tests", meta.get("tests")) if test),
        setup=_text("test_setup", meta.get("test_setup") or ""),
    )


def question_of(item: Example) -> Messages:
    """The turns before the gold reply: what a model is asked. Empty where nothing is asked."""
    turns = item.messages
    asked = turns[:-1] if turns and turns[-1].role == "assistant" else turns
    return asked if any(turn.role == "user" for turn in asked) else ()


def right_label(item: Example, reference: Reference) -> str:
    """The label of the right option, "" where none is named.

    A whole number in meta `answer` counts options from 0. A text is a label, or the text of an option; without an
    `answer` the last assistant turn is read the same way.
    """
    given = item.meta.get("answer")
    if isinstance(given, int) and not isinstance(given, bool):
        return reference.choices[given][0] if 0 <= given < len(reference.choices) else ""
    for text in reference.answers or (reference.gold_reply,):
        wanted = text.strip().casefold()
        for label, option in reference.choices:
            if wanted in (label.casefold(), option.strip().casefold()):
                return label
    return ""


def _choices(given: Any) -> tuple[tuple[str, str], ...]:
    if isinstance(given, Mapping):
        return tuple((str(label), _text("choices", text)) for label, text in given.items())
    texts = _listed("choices", given)
    if len(texts) > len(ascii_uppercase):
        raise InputError(f"meta 'choices' lists {len(texts)} options; a list may hold 26, a mapping from labels more")
    return tuple((label, _text("choices", text)) for label, text in zip(ascii_uppercase, texts, strict=False))


def _listed(name: str, given: Any) -> Sequence[Any]:
    if given is None:
        return ()
    if isinstance(given, str):
        return (given,)
    if not isinstance(given, Sequence):
        raise InputError(f"meta {name!r} must be a text or a list of texts, not {type(given).__name__}")
    return given


def _text(name: str, given: Any) -> str:
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise InputError(f"meta {name!r} must hold text or numbers, not {type(given).__name__}: {given!r:.80}")
    return str(given)
