"""Facts about every row of a block, one column each: size, language, code, mathematics, task family, licence.

A fact is a function of one row alone (and of its source's licence), so a shard of a pool keeps them for good.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from warehouse.block import Block, Mask
from warehouse.json_text import loads
from warehouse.language import languages
from warehouse.licences import first_text, normalised_licence

FAMILY_KEYS = ("task_family", "family", "task_type", "taxonomy", "task", "skill", "category", "dataset")
LICENCE_KEYS = ("license", "licence")
SEEN_CHARS = 1_000  # at the beginning of a row, of which the code is cut out
LANGUAGE_CHARS = 600  # of the rest; 1,000 give another answer for 1 row in 10,000 and take half as long again
CODE_LINES = 3  # fewer lines that look like code are an ordinary list, a semicolon or a stray brace

FENCE = r"(?m)^[ \t]*(?:```|~~~)"
FENCED = r"(?s)```.*?(?:```|\z)"
CODE_SIGNS = (  # one such line is enough
    r"(?m)^[ \t]*(?:"
    r"(?:async )?def \w+\([^)\n]*\)[^:\n]{0,60}:|class \w+(?:\([\w., ]*\))?:[ \t]*$|from [\w.]+ import [\w*]"
    r"|import [\w.]+(?: as \w+)?;?[ \t]*$|#include ?[<\"]|using namespace \w|package \w+;?[ \t]*$"
    r"|(?:public|private|protected)(?: static)?(?: final)? [\w<>\[\]]+ \w+[ (;=]"
    r"|(?:export )?(?:async )?function\*? ?\w*\([^)\n]*\) ?\{|(?:const|let|var) \w+ ?= ?\S|func \w*\(|fn \w+[<(]"
    r"|#!/(?:usr/)?bin/|<\?php|<!DOCTYPE html|if __name__ ?==|console\.log\(|System\.out\.print|std::cout"
    r"|(?:SELECT [\w*(][^?]*\bFROM|INSERT INTO|CREATE TABLE|DELETE FROM|UPDATE \w+ SET)\s"
    r")|</(?:div|span|html|body|script|table|ul|li|p|h[1-6]|a|td|button|form)>"
)
CODE_LINE = (
    r"(?m)^[ \t]*(?:"
    r"[^\n]*[\w)\]\"'];[ \t]*$|[^\n]*[)\w] ?\{[ \t]*$|[ \t]*\}[;,)]*[ \t]*$"
    r"|(?:if|elif|while|for|with|try|except|else|case|switch)\b[^\n]*:[ \t]*$|return [\w\"'(\[-][^\n]*[)\]\w]$"
    r"|print(?:ln|f)?\([^\n]*\)|[a-z_][\w.\[\]]* [-+*/|&]?= [^\n]*[\w)\]\"'}]$|\$ \w|>>> |#[a-z]+ |//[^\n]*"
    r"|@\w+(?:\(|$)|(?:sudo|pip|npm|git|docker|apt-get|curl|cd|mkdir) [-\w./]+"
    r")"
)
LATEX = (
    r"\\(?:frac|dfrac|tfrac|sqrt|sum|int|prod|lim|infty|cdot|times|div|pm|leq?|geq?|neq|approx|equiv|alpha|beta|theta"
    r"|lambda|sigma|pi|mathbb|mathrm|mathbf|boxed|begin\{(?:equation|align|p?matrix|cases|array)|binom|angle|circ|log|ln"
    r"|sin|cos|tan|vec|overline|left|right)(?:[^a-zA-Z]|$)|\\\[[^\n].*\\\]|\\\([^\n]+\\\)"
)
DOLLARS = r"\$[^$\n]{0,200}[\\^_=<>][^$\n]{0,200}\$"  # "$5 and $10" has none of these signs
NUMBER = r"[$€£]?(?:\d[\d,.]*|\.\d+)%?"
OPERATOR = r"(?:[-+*/×÷·−^]|x )"
ARITHMETIC = rf"{NUMBER}(?: [a-z]+)?\)? ?{OPERATOR} ?\(?-?{NUMBER}[^\n=;]{{0,60}}= ?[-−(]?[$€£]?\.?[\d(]"
EQUATION = r"(?:^|[\s(,:$])\(?[-−]?\d*[a-z](?:\^\d|²|³)? ?(?:[-+*/−] ?[^\n=\"';{}]{1,30})?= ?[-−]?\d+(?:[\s.,?;)$]|$)"
POWERS = r"\b\d*[a-z]\^\(?-?[\da-z]|[a-z0-9)][²³]|[√∑∫∞≤≥≠≈π∈∀∃±]"


def describe(block: Block, licence_of_source: str | None) -> dict[str, pa.Array]:
    """Columns aligned to the rows of `block`; `licence_of_source` is that of rows that name none themselves.

    turns, chars         int32; characters, of all turns
    language             ISO 639-1 of what users and assistants say, code aside; "und" where that is too little to tell
    has_code, has_math   bool, of what users and assistants say
    family               the task family that meta names (the first text among `FAMILY_KEYS`), or null
    licence              normalised: meta's own, else `licence_of_source`, or null
    """
    code = code_turns(block)
    rows_with_code = block.any_turn(code)
    stated = texts_in_meta(block.column("meta"), LICENCE_KEYS)
    return {
        "turns": pa.array(block.turns, pa.int32()),
        "chars": pa.array(block.sum_of_turns(block.chars_of_turn), pa.int32()),
        "language": languages(_spoken(block, rows_with_code)),
        "has_code": pa.array(rows_with_code),
        "has_math": pa.array(has_math(block, code)),
        "family": pa.array(texts_in_meta(block.column("meta"), FAMILY_KEYS), pa.string()),
        "licence": pa.array(_licences(stated, licence_of_source), pa.string()),
    }


def described(block: Block, licence_of_source: str | None = None) -> Block:
    """`block` with its facts as columns of its table, in place of those it has."""
    facts = describe(block, licence_of_source)
    table = pa.table({name: block.column(name) for name in block.table.schema.names if name not in facts} | facts)
    return Block(table)


def has_code(block: Block) -> Mask:
    """(n,) rows in which a user or an assistant shows code: see `code_turns`."""
    return block.any_turn(code_turns(block))


def code_turns(block: Block) -> Mask:
    """(turns,) the turns of users and assistants that show code.

    That is: a fence; one line that only code has (`def f(x):`, `#include <`, `</div>`); or `CODE_LINES` lines that look
    like code (end in `;` or `{`, assign, call print).
    """
    texts, turns = _spoken_turns(block)
    found = matches(texts, FENCE, "```", "~~~") | matches(texts, CODE_SIGNS)
    unsure = np.flatnonzero(~found & (np.asarray(pc.count_substring(texts, "\n")) >= CODE_LINES - 1))
    counts = pc.count_substring_regex(texts.take(pa.array(unsure)), CODE_LINE)
    found[unsure] = np.asarray(counts) >= CODE_LINES
    return _among(len(block.contents), turns[found])


def has_math(block: Block, code: Mask) -> Mask:
    """(n,) rows in which a user or an assistant writes mathematics; `code` (turns,) are the turns with code.

    That is: LaTeX commands or delimiters, or a sum with its result (`12 + 7 = 19`); in turns without code also a
    formula between dollar signs, an equation (`2x + 5 = 11`), a power (`x^2`) or a sign like √ or ∑.
    """
    texts, turns = _spoken_turns(block)
    found = matches(texts, LATEX, "\\") | matches(texts, ARITHMETIC, "=")
    unsure = np.flatnonzero(~found & ~code[turns])
    prose = texts.take(pa.array(unsure))
    found[unsure] = matches(prose, DOLLARS, "$") | matches(prose, EQUATION, "=") | matches(prose, POWERS)
    return block.any_turn(_among(len(block.contents), turns[found]))


def matches(texts: pa.StringArray, pattern: str, *signs: str) -> Mask:
    """(n,) the texts that match `pattern` (RE2). Where `signs` are given, only texts with one of them are searched."""
    if not signs:
        return np.asarray(pc.match_substring_regex(texts, pattern)).astype(bool)
    found = np.zeros(len(texts), bool)
    for sign in signs:
        found |= np.asarray(pc.match_substring(texts, sign)).astype(bool)
    likely = np.flatnonzero(found)
    found[likely] = np.asarray(pc.match_substring_regex(texts.take(pa.array(likely)), pattern)).astype(bool)
    return found


def texts_in_meta(meta: pa.StringArray, keys: Sequence[str]) -> list[str | None]:
    """(n,) the first text under one of `keys`, in their order and whatever their case; of a list its first element.

    `meta` holds one JSON object per row. Only rows that may have a key are parsed.
    """
    found: list[str | None] = [None] * len(meta)
    likely = np.flatnonzero(matches(meta, rf'(?i)"(?:{"|".join(keys)})"'))
    for row, text in zip(likely.tolist(), meta.take(pa.array(likely)).to_pylist(), strict=True):
        values = {name.casefold(): value for name, value in loads(text).items()}
        found[row] = next((first for key in keys if (first := first_text(values.get(key)))), None)
    return found


def _licences(stated: Sequence[str | None], otherwise: str | None) -> list[str | None]:
    known = {text: normalised_licence(text) for text in {*stated, otherwise} if text}
    default = known.get(otherwise or "")
    return [known[text] if text else default for text in stated]


def _spoken_turns(block: Block) -> tuple[pa.StringArray, Any]:
    """The contents of the turns that are no system prompts or tool results, and their positions."""
    turns = np.flatnonzero(block.is_user | block.is_assistant)
    return block.contents.take(pa.array(turns)), turns


def _among(count: int, places: Any) -> Mask:
    found = np.zeros(count, bool)
    found[places] = True
    return found


def _spoken(block: Block, code: Mask) -> pa.StringArray:
    """(n,) the beginning of what users and assistants say, with code cut out of the rows that have it."""
    starts = pc.utf8_slice_codeunits(block.contents, 0, SEEN_CHARS)
    texts = pc.utf8_slice_codeunits(block.joined(starts, block.is_user | block.is_assistant), 0, SEEN_CHARS)
    plain = texts.filter(pa.array(code))
    for pattern in (FENCED, CODE_SIGNS + r"[^\n]*", CODE_LINE + r"[^\n]*", r"`[^`\n]*`"):
        plain = pc.replace_substring_regex(plain, pattern, " ")
    return pc.utf8_slice_codeunits(pc.replace_with_mask(texts, pa.array(code), plain), 0, LANGUAGE_CHARS)
