"""JSON documents larger than memory, read value by value.

The standard library's decoder needs the whole text, and event parsers are slow and hold a 20 MB string whole. Here the
C decoder reads each element out of a window over the stream; an element that it cannot read is bounded by a scan of
brackets and quotes alone, so that a broken or oversized row costs that row and no more memory than the limit.
"""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from warehouse.errors import InputError
from warehouse.json_text import loads
from warehouse.rejects import ROW_LIMIT, Reason, Refused, excerpt

CHUNK = 2**20
_SPACE = re.compile(r"[ \t\r\n]*")
_SCALAR_END = re.compile(r"[\s,\]}:]")
_STRUCTURE = re.compile(r'["{}\[\]]')
_IN_STRING = re.compile(r'["\\]')
_ESCAPED_BYTES = re.compile(r"[\udc80-\udcff]")
_decode = json.JSONDecoder().raw_decode


def read_json(text: str) -> Any:
    """The value of `text`, or a `Refused` that says what is wrong with it."""
    try:
        return loads(text)
    except (ValueError, RecursionError) as error:
        return Refused(Reason.MALFORMED, excerpt(f"{error}: {text}"))


class JsonCursor:
    """Walks one JSON document in `stream`. `name` is used in errors.

    Values are read whole (up to `limit` bytes of text), containers can be walked by `elements` instead. A value that is
    too large, broken or not UTF-8 is answered by a `Refused`; a document that is cut short raises `InputError`.
    """

    def __init__(self, stream: BinaryIO, name: str, limit: int = ROW_LIMIT) -> None:
        self._stream, self._name, self._limit = stream, name, limit
        self._feed = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._text, self._at = "", 0
        self._base, self._line = 0, 1  # bytes and lines before the window
        self._invalid = False  # some byte of the document is not UTF-8

    @property
    def offset(self) -> int:
        """Bytes of the document before the cursor."""
        return self._base + _bytes(self._text[: self._at])

    def peek(self) -> str:
        """The next character that is not white space; empty at the end of the document."""
        while True:
            if found := _SPACE.match(self._text, self._at):
                self._at = found.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def elements(self) -> Iterator[tuple[Any, Any]]:
        """Walk the container at the cursor: (None, value) of each item of an array, (name, value) of an object."""
        for name in self.members():
            yield name, self.value()

    def members(self) -> Iterator[Any]:
        """Walk the container at the cursor by hand: stops before each value, which the caller must read or walk."""
        opened = self._take("[{")
        if self.peek() == (closing := "]" if opened == "[" else "}"):
            self._take(closing)
            return
        while True:
            name = self._name_of_member() if opened == "{" else None
            yield name
            if self._take("," + closing) == closing:
                return

    def value(self) -> Any:
        """The value at the cursor, or why it cannot be had."""
        self.peek()
        try:
            value, end = _decode(self._text, self._at)
        except (ValueError, RecursionError):
            return self._bounded()
        if end - self._at > self._limit or isinstance(value, int | float):  # a number may go on in the next chunk
            return self._bounded()
        return self._accept(value, end)

    def finish(self) -> None:
        """Raise `InputError` unless the document ends here."""
        if self.peek():
            raise self._error("the end of the document")

    def _name_of_member(self) -> str:
        if self.peek() != '"':
            raise self._error("a quoted name")
        name = self.value()
        if not isinstance(name, str):
            raise self._error("a name in UTF-8")
        self._take(":")
        return name

    def _accept(self, value: Any, end: int) -> Any:
        start, self._at = self._at, end
        if self._invalid and _ESCAPED_BYTES.search(self._text, start, end):
            return Refused(Reason.INVALID_UTF8, excerpt(self._text[start:end]))
        return value

    def _bounded(self) -> Any:
        """Find the end of the value by its brackets and quotes, then decode that much."""
        line = self._line + self._text.count("\n", 0, self._at)
        size = self._scan()
        if size is None:
            return Refused(Reason.TOO_LARGE, f"line {line}: more than {self._limit} bytes of text")
        text = self._text[self._at : self._at + size]
        value = read_json(text)
        if isinstance(value, Refused):
            value = Refused(value.reason, excerpt(f"line {line}: {value.detail}"))
        return self._accept(value, self._at + size)

    def _scan(self) -> int | None:
        """Characters of the value at the cursor; None, and the cursor after it, where it is larger than the limit."""
        if self.peek() not in ("{", "[", '"'):
            return self._scan_scalar()
        dropped, position, depth, quoted = 0, self._at, 0, False
        while True:
            found = (_IN_STRING if quoted else _STRUCTURE).search(self._text, position)
            if found is None:
                ahead = max(position - len(self._text), 0)  # 1 where the last character escapes one of the next window
                if dropped + len(self._text) - self._at > self._limit:
                    dropped, self._at = dropped + len(self._text) - self._at, len(self._text)
                scanned = len(self._text) - self._at
                if not self._more():
                    raise self._error("the rest of the document; it is cut short")
                position = self._at + scanned + ahead
                continue
            position, token = found.end(), found.group()
            if token == "\\":
                position += 1
            elif token == '"':
                quoted = not quoted
            else:
                depth += 1 if token in "{[" else -1
            if depth == 0 and not quoted:
                return self._measured(dropped, position)

    def _measured(self, dropped: int, end: int) -> int | None:
        if dropped + end - self._at <= self._limit:
            return end - self._at
        self._at = end
        return None

    def _scan_scalar(self) -> int:
        while not (found := _SCALAR_END.search(self._text, self._at)):
            if len(self._text) - self._at > self._limit or not self._more():
                return len(self._text) - self._at
        if found.start() == self._at:
            raise self._error("a value")
        return found.start() - self._at

    def _take(self, expected: str) -> str:
        char = self.peek()
        if not char or char not in expected:
            raise self._error(" or ".join(expected))
        self._at += 1
        return char

    def _more(self) -> bool:
        """Drop what lies before the cursor and read on; False at the end of the stream."""
        data = self._stream.read(CHUNK)
        chunk = self._feed.decode(data, final=not data)
        if not chunk and not data:
            return False
        passed = self._text[: self._at]
        self._base, self._line = self._base + _bytes(passed), self._line + passed.count("\n")
        self._text, self._at = self._text[self._at :] + chunk, 0
        self._invalid = self._invalid or _has_escaped_bytes(chunk)
        return True

    def _error(self, expected: str) -> InputError:
        line = self._line + self._text.count("\n", 0, self._at)
        found = repr(self._text[self._at : self._at + 40]) if self._at < len(self._text) else "the end of the file"
        return InputError(f"{self._name}, line {line}: expected {expected}, found {found}. Is the JSON whole?")


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))


def _has_escaped_bytes(text: str) -> bool:
    return not text.isascii() and _ESCAPED_BYTES.search(text) is not None
