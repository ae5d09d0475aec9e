"""Whether a model can read what it is asked: prompts that fit its context, in the format that it was tuned with.

A model on this machine is asked before any work; one behind an endpoint, or in another process, says so afterwards.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from tokenizers import Tokenizer

from eval.likelihoods import reply_turn
from eval.protocol import Item
from models.chat import WRITTEN, ChatFormat, Tokens, encode
from models.encoded import Encoded
from warehouse.errors import InputError
from warehouse.records import Message, Messages

SHOWN = 3


@runtime_checkable
class Readable(Protocol):
    """A model whose tokenizer, chat format and context are at hand."""

    tokenizer: Any
    backend: Tokenizer
    chat: ChatFormat
    max_length: int


@runtime_checkable
class Remembering(Protocol):
    """One that remembers what it encoded, since the same rows are asked next."""

    encoded: Encoded


def reader_of(model: Any) -> Readable | None:
    """`model`, or the one that it stands before (a response store, another name); None where it is elsewhere."""
    while model is not None and not isinstance(model, Readable):
        model = getattr(model, "model", None)
    return model


def check_format(model: Any, any_template: bool) -> None:
    """Raise `InputError` where a model is asked in another format than it was tuned with.

    A model that was tuned here carries the format it learnt; one that carries a chat template of its own may be asked
    in Tülu's, but not without any marks. Without the marks it learnt a model answers next to nothing right.
    """
    reader = reader_of(model)
    if reader is None or any_template:
        return
    own = reader.tokenizer.chat_template
    carried, asked = _bare(own.get("default") if isinstance(own, dict) else own), _bare(reader.chat.template)
    names = {_bare(text): name for name, text in WRITTEN.items()}
    if not carried or carried == asked or (carried not in names and names.get(asked) != "raw"):
        return
    raise InputError(
        f"the model carries the chat template {names.get(carried, 'of its makers')!r}, but is asked in "
        f"{names.get(asked, 'another')!r}: its scores would say little about it; give the template it was tuned with, "
        "or `any_template: true` where this is meant"
    )


def _bare(template: str | None) -> str:
    """A template without the begin token that some tokenizers want written before it."""
    return (template or "").removeprefix("{{- bos_token -}}").strip()


def fitted(items: Sequence[Item], model: Any, truncate: str) -> list[Item]:
    """The items with their prompts counted; those that do not fit cut on the left where `truncate` says so.

    A prompt fits with one token of reply, or with its longest choice. Raises `InputError` for those that do not, and
    for choices whose tokens are joined with the end of the prompt.
    """
    reader = reader_of(model)
    if reader is None:
        return list(items)
    asked = _asked(reader, [item.prompt for item in items])
    replies = _replies(reader, items, asked)
    found = [_counted(item, tokens) for item, tokens in zip(items, asked, strict=True)]
    needed = [item.prompt_tokens + reply for item, reply in zip(found, replies, strict=True)]
    long = [number for number, n in enumerate(needed) if n > reader.max_length]
    if long and not truncate:
        first = ", ".join(f"{items[n].item_id}: {needed[n]}" for n in long[:SHOWN])
        raise InputError(
            f"{len(long)} of {len(items)} items do not fit the model's context of {reader.max_length} tokens (first: "
            f"{first}); raise the context length, take fewer worked examples, or ask for `truncate: left`"
        )
    for number in long:
        found[number] = _cut(reader, found[number], replies[number])
    return found


def _asked(reader: Readable, prompts: Sequence[Messages]) -> list[Tokens]:
    return _encoded(reader, prompts, ask=True)


def _encoded(reader: Readable, rows: Sequence[Messages], ask: bool) -> list[Tokens]:
    if isinstance(reader, Remembering):
        return reader.encoded(rows, ask)
    return encode(reader.backend, reader.chat, rows, ask=ask)


def _replies(reader: Readable, items: Sequence[Item], asked: Sequence[Tokens]) -> list[int]:
    """Tokens that each item's reply takes at least: its longest choice, else 1.

    Raises `InputError` for a choice that does not begin with a token of its own: what it would be given is not its
    probability.
    """
    rows = [(number, text) for number, item in enumerate(items) for text in item.choices]
    whole = _encoded(reader, [(*items[n].prompt, *reply_turn(text)) for n, text in rows], ask=False)
    needed = [1] * len(items)
    for (number, text), row in zip(rows, whole, strict=True):
        before = asked[number].ids
        if not np.array_equal(row.ids[: len(before)], before):
            raise InputError(
                f"choice {text!r} of item {items[number].item_id} is joined with the end of the prompt into one token, "
                "so it has no probability of its own; write it so that it begins with a letter or a digit"
            )
        needed[number] = max(needed[number], len(row.ids) - len(before))
    return needed


def _cut(reader: Readable, item: Item, reply: int) -> Item:
    """`item` whose prompt has lost so many characters at its beginning, turns included, that it fits with its reply."""
    low, high = 0, sum(len(turn.content) for turn in item.prompt)
    while low < high:
        middle = (low + high) // 2
        tokens = _asked(reader, [_without(item.prompt, middle)])[0]
        if len(tokens.ids) + reply <= reader.max_length:
            high = middle
        else:
            low = middle + 1
    kept = _without(item.prompt, low)
    given = max(0, item.given - (len(item.prompt) - len(kept)))
    tokens = _asked(reader, [kept])[0]
    if len(tokens.ids) + reply > reader.max_length:
        raise InputError(
            f"a reply to item {item.item_id} alone takes {reply} tokens, more than the model's context of "
            f"{reader.max_length} leaves; raise the context length"
        )
    return _counted(replace(item, prompt=kept, given=given, cut=True), tokens)


def _counted(item: Item, prompt: Tokens) -> Item:
    return replace(item, prompt_tokens=len(prompt.ids), heard=int(prompt.reply.sum()))


def _without(prompt: Messages, characters: int) -> Messages:
    """`prompt` without its first so many characters; the last turn stays, be it empty. A reply does not come first."""
    turns = list(prompt)
    while len(turns) > 1 and characters >= len(turns[0].content):
        characters -= len(turns.pop(0).content)
    if turns[0].role == "assistant" and len(turns) > 1:
        return tuple(turns[1:])
    return (Message(turns[0].role, turns[0].content[characters:]), *turns[1:])
