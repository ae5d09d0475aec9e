"""JSON text to values and back: `orjson` where its answer is the standard library's, which does the rest."""

import json
from typing import Any

import orjson

_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = b"0" * 19  # orjson makes floats of integers beyond 64 bits
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def loads(text: str) -> Any:
    """The value of `text`, integers exact. Raises `ValueError` or `RecursionError` for what is not JSON."""
    if _LONG_NUMBER not in text.encode("utf-8", "surrogatepass").translate(_DIGITS):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            pass  # not a number, a lone surrogate, or really broken: the standard library says
    return json.loads(text)


def dumps(value: Any) -> str:
    """`value` as compact JSON, unicode as it is. Raises `TypeError` or `ValueError` for what JSON cannot hold.

    A lone surrogate passes: only encoding the text finds it.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS).decode()
    except orjson.JSONEncodeError:
        return _encode(value)
