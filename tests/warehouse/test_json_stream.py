"""The cursor must answer as the standard library does, whatever the size of its window, and bound what it holds."""

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warehouse import json_stream, json_text
from warehouse.errors import InputError
from warehouse.json_stream import JsonCursor
from warehouse.rejects import Reason, Refused

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)


@pytest.fixture(params=[1, 3, 64, 2**20])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(json_stream, "CHUNK", request.param)
    return int(request.param)


def cursor(text: str | bytes, limit: int = 2**20) -> JsonCursor:
    return JsonCursor(io.BytesIO(text if isinstance(text, bytes) else text.encode()), "data.json", limit)


def items(text: str | bytes, limit: int = 2**20) -> list[Any]:
    walked = cursor(text, limit)
    found = [value for _, value in walked.elements()]
    walked.finish()
    return found


@pytest.mark.parametrize("size", [1, 7, 2**20])
@given(values=st.lists(VALUES, max_size=6), ascii_only=st.booleans(), indent=st.sampled_from([None, 0, 2]))
def test_elements_are_those_of_the_standard_library(
    size: int, values: list[Any], ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(values, ensure_ascii=ascii_only, indent=indent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "CHUNK", size)
        assert items(text) == values


@given(value=st.dictionaries(st.text(), VALUES, max_size=5))
def test_members_of_an_object_come_with_their_names(value: dict[str, Any]) -> None:
    assert dict(cursor(json.dumps(value)).elements()) == value


@given(value=VALUES)
def test_json_text_reads_and_writes_as_the_standard_library_does(value: Any) -> None:
    assert json_text.loads(json.dumps(value)) == value
    assert json.loads(json_text.dumps(value)) == value


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**40])
def test_long_integers_stay_exact(number: int) -> None:
    assert json_text.loads(f'{{"a": {number}}}') == {"a": number}
    assert json_text.dumps([number]) == f"[{number}]"


def test_an_oversized_element_is_refused_and_the_rest_is_read(chunk: int) -> None:
    giant = json.dumps({"text": 'quote " brace } backslash \\ ' * 40})
    found = items(f'[1, {giant}, {{"b": [2]}}, "{"x" * 900}", 3]', limit=200)
    assert [value.reason if isinstance(value, Refused) else value for value in found] == [
        1, Reason.TOO_LARGE, {"b": [2]}, Reason.TOO_LARGE, 3,
    ]  # fmt: skip


def test_an_oversized_element_is_never_held_whole() -> None:
    class Endless(io.RawIOBase):
        left = 40

        def read(self, size: int = -1) -> bytes:
            self.left -= 1
            assert len(walked._text) < 3 * 2**20
            return b"[" + b'"' + b"x" * 2**20 if self.left == 39 else b"x" * 2**20 if self.left > 0 else b'", 7]'

    walked = JsonCursor(Endless(), "data.json", 2**20)  # type: ignore[arg-type]  # a raw stream reads as a binary one does
    found = [value for _, value in zip(range(2), (v for _, v in walked.elements()), strict=False)]
    assert isinstance(found[0], Refused)
    assert found[0].reason is Reason.TOO_LARGE
    assert found[1] == 7


def test_a_broken_element_costs_that_element(chunk: int) -> None:
    found = items('[{"a": 1,}, {"a" 2}, nul, {"a": 3}]')
    assert [getattr(value, "reason", value) for value in found] == [Reason.MALFORMED] * 3 + [{"a": 3}]


def test_bytes_that_are_not_utf8_cost_their_element(chunk: int) -> None:
    found = items(b'["\xc3\xa4", "\xff", "\\udc80", "z"]')
    assert found[0] == "ä"
    assert found[1].reason is Reason.INVALID_UTF8
    assert found[2:] == ["\udc80", "z"]  # an escape is a lone surrogate, not a broken byte


def test_nesting_beyond_the_stack_is_malformed() -> None:
    found = items("[" + "[" * 200_000 + "]" * 200_000 + ", 1]")
    assert found[0].reason is Reason.MALFORMED
    assert found[1] == 1


@pytest.mark.parametrize("text", ["[1, 2", '[{"a": "b', "[1 2]", "[1]]", '[1] {"a": 1}', "[,]", "[1}", "["])
def test_a_document_that_is_not_whole_names_its_line(text: str, chunk: int) -> None:
    with pytest.raises(InputError, match=r"data\.json, line 3: expected"):
        items("\n\n" + text)


def test_the_offset_counts_bytes(chunk: int) -> None:
    text = '{"ä": "öü\\n", "b": [1, 2]}'
    walked = cursor(text)
    offsets = {}
    for name in walked.members():
        walked.peek()
        offsets[name] = walked.offset
        walked.value()
    assert offsets == {"ä": text.encode().index('"ö'.encode()), "b": text.encode().index(b"[1")}
