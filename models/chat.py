"""Conversations as text and as token ids: one format for measuring, generating and training.

The default is the Tülu format of `templates/tulu.jinja`, whatever template a tokenizer carries, so that the same row is
the same text under every model:

    <|user|>\\n{content}\\n<|assistant|>\\n{content}{end token}\\n

"grape" is the plain format in which a base model scores replies (Question: ... Answer: ...); the space before a reply
is of the reply, because tokenizers join the two. "raw" writes a prompt and its reply as they are and nothing between
them: what a scorer that answers with a digit is trained on.

A *reply token* is a token of an assistant turn's content or the end token right after it: what the loss sees. Role
marks, user turns, line ends between turns and the begin token are not reply tokens.

Imports neither torch nor transformers.
"""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, get_args

import jinja2
import numpy as np
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from warehouse.errors import InputError
from warehouse.records import Messages, canonical, digest

TemplateName = Literal["tulu", "grape", "raw", "own"]
TEMPLATES: tuple[str, ...] = get_args(TemplateName)
WRITTEN = {
    path.stem: path.read_text(encoding="utf-8") for path in (Path(__file__).parent / "templates").glob("*.jinja")
}
TULU = WRITTEN["tulu"]

Span = tuple[int, int]
ENCODE_ROWS = 2048  # rows whose `Encoding` objects (about 200 bytes per token) are alive at once


def before_reply(messages: Messages) -> Messages:
    """The turns before the first reply; all of them where there is none."""
    first = next((i for i, message in enumerate(messages) if message.role == "assistant"), len(messages))
    return messages[:first]


@dataclass(frozen=True, slots=True)
class Rendered:
    """The text of one conversation and the character ranges [start, stop) of its replies, end tokens included."""

    text: str
    replies: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Tokens:
    """One conversation as ids (length,) int32 and `reply` (length,) bool, cut on the right where `truncated`."""

    ids: NDArray[np.int32]
    reply: NDArray[np.bool_]
    truncated: bool = False

    @property
    def prompt(self) -> int:
        """Tokens before the first reply token; all of them where there is none."""
        return int(self.reply.argmax()) if self.reply.any() else len(self.ids)


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How conversations are written for one model: a Jinja template, and the model's begin and end token as text.

    `template` can be given to a trainer as it is (`tokenizer.chat_template = format.template`): it marks the replies
    and writes the begin token itself, where the tokenizer would have added one.
    """

    template: str
    bos: str
    eos: str

    @property
    def key(self) -> str:
        """Changes iff the text of some conversation could change."""
        return digest(canonical({"template": self.template, "bos": self.bos, "eos": self.eos}))

    def render(self, messages: Messages, ask: bool = False) -> Rendered:
        """The conversation, white space around it removed; with `ask`, followed by the mark that opens a reply.

        Raises `InputError` where a model's own template refuses the conversation.
        """
        if "endgeneration" in self.template:
            return self._marked(messages, ask)
        return Rendered(self._text(messages, ask), tuple(self._found(messages)))

    def _marked(self, messages: Messages, ask: bool) -> Rendered:
        marks = _unused_marks(messages)
        opens, closes = marks
        pieces = self._text(messages, ask, marks).replace(closes, opens).split(opens)
        ends = list(accumulate(map(len, pieces)))
        return Rendered("".join(pieces), tuple((ends[i - 1], ends[i]) for i in range(1, len(pieces), 2)))

    def _found(self, messages: Messages) -> list[Span]:
        """Replies of a template without marks: what follows the text that would have asked for each of them."""
        spans = []
        for i, message in enumerate(messages):
            if message.role == "assistant":
                asked, answered = self._text(messages[:i], ask=True), self._text(messages[: i + 1])
                if not answered.startswith(asked):
                    raise InputError(
                        f"the model's own chat template writes turn {i} differently after its reply than before it, so "
                        "the reply's tokens cannot be told apart; use template 'tulu'"
                    )
                spans.append((len(asked), len(answered)))
        return spans

    def _text(self, messages: Messages, ask: bool = False, marks: tuple[str, str] = ("", "")) -> str:
        try:
            text = _compile(self.template).render(
                messages=[{"role": m.role, "content": m.content} for m in messages],
                add_generation_prompt=ask,
                bos_token=self.bos,
                eos_token=self.eos,
                reply_opens=marks[0],
                reply_closes=marks[1],
            )
        except jinja2.TemplateError as error:
            raise InputError(
                f"the model's own chat template refuses a conversation ({error}); use template 'tulu'"
            ) from error
        return text if ask else text.strip()


class _Generation(Extension):
    """`{% generation %}` ... `{% endgeneration %}`: writes `reply_opens` and `reply_closes` around its body."""

    tags = {"generation"}  # noqa: RUF012 - the base class declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return [_output("reply_opens", line), *body, _output("reply_closes", line)]


def _output(variable: str, line: int) -> nodes.Output:
    return nodes.Output([nodes.Name(variable, "load")], lineno=line)


def _unused_marks(messages: Messages) -> tuple[str, str]:
    """A pair of marks that no message contains, so that no row can forge a reply."""
    n = 0
    while any(f"\0reply {n}" in m.content for m in messages):
        n += 1
    return f"\0reply {n} opens\0", f"\0reply {n} closes\0"


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(value: Any, indent: int | None = None) -> str:
    # Jinja's own filter escapes HTML, which a prompt must not be
    return json.dumps(value, ensure_ascii=False, indent=indent)


@functools.lru_cache(maxsize=32)
def _compile(source: str) -> jinja2.Template:
    """The settings of transformers' chat templates, but no clock: a row's text must not depend on the day.

    Templates that print the date use `strftime_now` where it is defined and a fixed date where it is not.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _refuse
    return environment.from_string(source)


def begin_token(tokenizer: Tokenizer) -> str:
    """The token that this tokenizer puts before a text by itself, as text; "" where it adds none."""
    bare, full = tokenizer.encode("a", add_special_tokens=False).ids, tokenizer.encode("a").ids
    if len(full) > len(bare) and full[0] != bare[0]:
        return str(tokenizer.id_to_token(full[0]))
    return ""


def chat_format(
    tokenizer: Tokenizer, eos: str | None, template: str = "tulu", own: str | None = None, bos: str | None = None
) -> ChatFormat:
    """The format of a model: one of `templates`, or with template "own" the one that its tokenizer carries.

    Raises `InputError` for an unknown template name, a tokenizer without an end token, or "own" where there is none.
    """
    if template not in TEMPLATES:
        raise InputError(f"unknown template {template!r}; known templates: {', '.join(TEMPLATES)}")
    if not eos:
        raise InputError("the tokenizer names no end token (eos_token), so a reply would have no end; set one")
    if template == "own":
        if own is None:
            raise InputError("template 'own' was asked for, but the tokenizer carries no chat template; use 'tulu'")
        return ChatFormat(own, bos or "", eos)
    begin = begin_token(tokenizer)
    written = WRITTEN[template]
    return ChatFormat("{{- bos_token -}}" + written if begin else written, begin, eos)


def encode(
    tokenizer: Tokenizer,
    chat: ChatFormat,
    rows: Sequence[Messages],
    max_length: int | None = None,
    ask: bool = False,
) -> list[Tokens]:
    """Ids and reply masks of conversations, in the order given, cut on the right to `max_length` tokens.

    With `ask` each ends with the mark that opens a reply. Special tokens are those of the text alone: the template
    writes the begin token, and the tokenizer adds nothing.
    """
    tokenizer.no_truncation()
    tokenizer.no_padding()
    encoded: list[Tokens] = []
    for start in range(0, len(rows), ENCODE_ROWS):
        texts = [chat.render(row, ask) for row in rows[start : start + ENCODE_ROWS]]
        encodings = tokenizer.encode_batch([t.text for t in texts], add_special_tokens=False)
        encoded += [_cut(e, t.replies, max_length) for e, t in zip(encodings, texts, strict=True)]
    return encoded


def _cut(encoding: Encoding, replies: tuple[Span, ...], max_length: int | None) -> Tokens:
    ids = np.asarray(encoding.ids, np.int32)
    reply = np.zeros(len(ids), np.bool_)
    for start, stop in replies:
        first = _token_at(encoding, range(start, stop))
        last = _token_at(encoding, range(stop - 1, start - 1, -1))
        if first is not None and last is not None:
            reply[first : last + 1] = True
    return Tokens(ids[:max_length], reply[:max_length], max_length is not None and len(ids) > max_length)


def _token_at(encoding: Encoding, characters: range) -> int | None:
    """The token of the first of `characters` that any token covers (a normaliser may have dropped some)."""
    tokens = (encoding.char_to_token(c) for c in characters)
    return next((token for token in tokens if token is not None), None)
