"""Conversations for tests, as tables of the columns that a block reads."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from warehouse.block import Block

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
Turns = Sequence[tuple[str, str]]


def table_of(conversations: Sequence[Turns], metas: Sequence[Mapping[str, Any]] | None = None) -> pa.Table:
    """One row per conversation of (role, content) turns."""
    messages = [[{"role": role, "content": content} for role, content in turns] for turns in conversations]
    metas = metas or [{}] * len(conversations)
    return pa.table(
        {
            "messages": pa.array(messages, MESSAGES),
            "source": pa.array(["made"] * len(messages), pa.string()),
            "meta": pa.array([json.dumps(meta) for meta in metas], pa.string()),
        }
    )


def block_of(conversations: Sequence[Turns], metas: Sequence[Mapping[str, Any]] | None = None) -> Block:
    return Block(table_of(conversations, metas))


def asked(prompt: str, reply: str) -> list[tuple[str, str]]:
    return [("user", prompt), ("assistant", reply)]
