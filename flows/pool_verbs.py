"""`winnow pool`: which pool versions there are, what one holds, how two differ, and what rows look like."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flows.tables import as_text
from warehouse.ask import Answer, Connection, answer, ask, connect
from warehouse.named import SHORT, Version, pool, versions
from warehouse.records import Example

if TYPE_CHECKING:
    from warehouse.pools import PoolReader

MOST_VALUES = 12  # of one fact that `show` lists
MOST_CHARS = 4000  # of one turn that `sample` prints
EXCERPT = 160
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all controls but tab and line feed
CARD = ["sample_id", "source", "location", "language", "turns", "chars", "family", "licence"]

RUN_OVER = """SELECT max(s.run) FROM stages s JOIN filters f ON f.cleaning = s.key WHERE f.pool = ?"""
SECTIONS = {
    "sources": """SELECT source, count(*) AS rows, round(avg(turns), 1) AS turns, sum(chars) AS chars
        FROM samples WHERE pool = ? GROUP BY source ORDER BY rows DESC, source""",
    "languages": "SELECT language, count(*) AS rows FROM samples WHERE pool = ? GROUP BY ALL ORDER BY rows DESC, 1",
    "turns": "SELECT turns, count(*) AS rows FROM samples WHERE pool = ? GROUP BY ALL ORDER BY turns",
    "code and maths": """
        SELECT round(avg(has_code::INT), 4) AS "share with code", round(avg(has_math::INT), 4) AS "share with maths"
        FROM samples WHERE pool = ?""",
    "tokens": """SELECT model, sum(tokens) AS tokens, round(avg(tokens), 1) AS mean, max(tokens) AS longest
        FROM token_counts WHERE pool = ? GROUP BY model ORDER BY model""",
    "licences": """SELECT coalesce(licence, 'not known') AS licence, count(*) AS rows
        FROM samples WHERE pool = ? GROUP BY ALL ORDER BY rows DESC, 1""",
    "families": """SELECT coalesce(family, 'not named') AS family, count(*) AS rows
        FROM samples WHERE pool = ? GROUP BY ALL ORDER BY rows DESC, 1""",
    "rejected on import": """SELECT reason, count(*) AS rows FROM rejects WHERE pool = ?
        GROUP BY reason ORDER BY rows DESC, 1""",
    "filters of the last run over it": f"""
        SELECT step, filter, action, sum(rows_in)::BIGINT AS rows_in, sum(found)::BIGINT AS found,
               sum(rows_out)::BIGINT AS rows_out
        FROM filters WHERE pool = ? AND cleaning IN (SELECT key FROM stages WHERE run = ({RUN_OVER}))
        GROUP BY ALL ORDER BY step, filter""",
    "selections from it": f"""SELECT method, budget, seed, rows, left(selection, {SHORT}) AS selection
        FROM selections WHERE pool = ? ORDER BY method, budget, seed""",
}  # fmt: skip

FACTS = ("source", "language", "has_code", "has_math", "family", "licence", "given_id", "meta")
FACT_LIST = ", ".join(FACTS)
SIDES = f"""
CREATE TEMP VIEW a AS SELECT sample_id::UUID AS id, "row", {FACT_LIST} FROM samples WHERE pool = '{{a}}';
CREATE TEMP VIEW b AS SELECT sample_id::UUID AS id, "row", {FACT_LIST} FROM samples WHERE pool = '{{b}}';
"""  # keys of pools are hexadecimal digits; as UUIDs ids take half the memory
BY_SOURCE = """
SELECT source, sum(only_a)::BIGINT AS "only in A", sum(only_b)::BIGINT AS "only in B", sum(shared)::BIGINT AS "in both"
FROM (
    SELECT source, count(*) AS only_a, 0 AS only_b, 0 AS shared FROM a ANTI JOIN b USING (id) GROUP BY source UNION ALL
    SELECT source, 0, count(*), 0 FROM b ANTI JOIN a USING (id) GROUP BY source UNION ALL
    SELECT source, 0, 0, count(*) FROM a SEMI JOIN b USING (id) GROUP BY source
) GROUP BY source ORDER BY source"""
CHANGED = f"""
CREATE TEMP TABLE changed AS
SELECT id FROM (SELECT id, arg_min(hash({FACT_LIST}), "row") AS facts FROM a GROUP BY id) x
JOIN (SELECT id, arg_min(hash({FACT_LIST}), "row") AS facts FROM b GROUP BY id) y USING (id)
WHERE x.facts <> y.facts"""
WHAT_CHANGED = f"""
WITH x AS (SELECT * FROM a SEMI JOIN changed USING (id) QUALIFY row_number() OVER (PARTITION BY id ORDER BY "row") = 1),
     y AS (SELECT * FROM b SEMI JOIN changed USING (id) QUALIFY row_number() OVER (PARTITION BY id ORDER BY "row") = 1)
SELECT {", ".join(f"count(*) FILTER (x.{fact} IS DISTINCT FROM y.{fact}) AS {fact}" for fact in FACTS)}
FROM x JOIN y USING (id)"""
ONLY = 'SELECT "row" FROM {0} ANTI JOIN {1} USING (id) ORDER BY "row" LIMIT {2}'


@dataclass(frozen=True, slots=True)
class Wish:
    """Which rows to draw: `n` of those of `source`, of those that the filter `dropped`, and where the SQL holds."""

    n: int
    seed: int
    source: str | None = None
    dropped: str | None = None
    where: str | None = None


def listing(home: Path) -> str:
    """Every pool version: name, version, rows, rejected, made and key."""
    rows = [(v.name, v.version, v.n, v.rejected, f"{v.made:%Y-%m-%d %H:%M}", v.key[:SHORT]) for v in versions(home)]
    return as_text(Answer(("name", "version", "rows", "rejected", "made", "key"), rows))


def show(home: Path, text: str) -> str:
    """What the pool that `text` names holds, what was kept out of it, and what was chosen from it."""
    version = pool(home, text)
    parts = [_heading(version)]
    with connect(home) as connection:
        for title, sql in SECTIONS.items():
            found = answer(connection, sql, [version.key] * sql.count("?"))
            if found.rows:
                parts.append(f"{title}\n{_indented(as_text(_few(found, version.n)))}")
    return "\n\n".join(parts)


def _heading(version: Version) -> str:
    rows = f"{version.n:,} rows of {version.rows_in:,} read, {version.rejected:,} rejected"
    return f"{version}  {rows}, made {version.made:%Y-%m-%d %H:%M}  {version.key}"


def _few(found: Answer, n: int) -> Answer:
    """The first values of a fact, each with its share where it counts rows; says how many values are left out."""
    names, rows = found.names, list(found.rows)
    if names[1:2] == ("rows",):
        rows = [(*row, f"{row[1] / n:.1%}") for row in rows]
        names = (*names, "share")
    return Answer(names, rows[:MOST_VALUES], max(len(rows) - MOST_VALUES, 0))


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def diff(home: Path, first: str, second: str, most: int) -> str:
    """How two pool versions differ by `sample_id`: rows by source, facts that changed, and `most` rows of each side."""
    from warehouse.pools import PoolReader  # half a second with all it needs, and only rows need it

    a, b = pool(home, first), pool(home, second)
    with connect(home) as connection:
        connection.execute(SIDES.format(a=a.key, b=b.key))
        by_source = answer(connection, BY_SOURCE)
        connection.execute(CHANGED)
        changed = answer(connection, WHAT_CHANGED).dicts()[0]
        only = {"A": _first(connection, "a", "b", most), "B": _first(connection, "b", "a", most)}
    totals = [sum(row[at] for row in by_source.rows) for at in (1, 2, 3)]
    parts = [f"A  {_heading(a)}\nB  {_heading(b)}"]
    parts += [as_text(Answer(by_source.names, [*by_source.rows, ("all", *totals)]))]
    told = ", ".join(f"{fact} of {count:,}" for fact, count in changed.items() if count)
    parts += [f"rows in both: {f'changed are {told}' if told else 'no other fact changed'}"]
    for side, version in (("A", a), ("B", b)):
        if len(only[side]):
            parts += [f"only in {side}, for instance\n" + _excerpts(PoolReader(version.folder(home)), only[side])]
    return "\n\n".join(parts)


def _first(connection: Connection, here: str, there: str, most: int) -> NDArray[np.int64]:
    return np.array([row for (row,) in answer(connection, ONLY.format(here, there, most)).rows], np.int64)


def _excerpts(reader: "PoolReader", rows: NDArray[np.int64]) -> str:
    lines = []
    for row, example in zip(rows.tolist(), reader.examples(rows), strict=True):
        asked = next((turn.content for turn in example.messages if turn.role == "user"), "")
        shown = UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", " ".join(asked[:EXCERPT].split()))
        lines.append(f"  row {row:,}  {example.source}  {shown}")
    return "\n".join(lines)


def sample(home: Path, text: str, wish: Wish, as_json: bool) -> str:
    """Conversations drawn from a pool, readable, or as one JSON object.

    Raises `InputError` for a pool that is not there and for a condition that DuckDB refuses.
    """
    from warehouse.pools import PoolReader  # as above

    version = pool(home, text)
    reader = PoolReader(version.folder(home))
    rows, why = _drawn(home, version, wish)
    facts = [row for _, table in reader.take(rows, CARD) for row in table.to_pylist()]
    shown = [
        {"row": row, **card, **({"dropped": why[row]} if row in why else {}), "example": example}
        for row, card, example in zip(rows.tolist(), facts, reader.examples(rows), strict=True)
    ]
    if as_json:
        plain = [_plain(card) for card in shown]
        return json.dumps({"pool": version.key, "name": str(version), "rows": plain}, ensure_ascii=False)
    return "\n\n".join(_readable(version, card) for card in shown) or "no row fits"


def _plain(card: dict[str, Any]) -> dict[str, Any]:
    facts = {name: value for name, value in card.items() if name != "example"}
    example: Example = card["example"]
    return facts | {"messages": [asdict(turn) for turn in example.messages], "meta": dict(example.meta)}


def _drawn(home: Path, version: Version, wish: Wish) -> tuple[NDArray[np.int64], dict[int, str]]:
    """The rows drawn, ascending, and why the filter dropped them."""
    why = _dropped(home, version, wish.dropped) if wish.dropped else {}
    fit = _marked(version.n, list(why)) if wish.dropped else np.ones(version.n, np.bool_)
    conditions, values = ["pool = ?"], [version.key]
    if wish.source is not None:
        conditions, values = [*conditions, "source = ?"], [*values, wish.source]
    if wish.where is not None:
        conditions.append(f"(\n{wish.where}\n)")
    if len(conditions) > 1:
        with connect(home) as connection:
            found = connection.execute(f'SELECT "row" FROM samples WHERE {" AND ".join(conditions)}', values)
            fit &= _marked(version.n, found.fetchnumpy()["row"])
    rows = np.flatnonzero(fit)
    rng = np.random.default_rng(wish.seed)
    return np.sort(rng.choice(rows, min(wish.n, len(rows)), replace=False)), why


def _marked(n: int, rows: Any) -> NDArray[np.bool_]:
    """(n,) which rows are among `rows`."""
    marks = np.zeros(n, np.bool_)
    marks[rows] = True
    return marks


def _dropped(home: Path, version: Version, filter_name: str) -> dict[int, str]:
    sql = 'SELECT "row", reason, detail, other_row FROM drops WHERE pool = ? AND filter = ?'
    found = ask(home, sql, [version.key, filter_name]).rows
    return {row: ", ".join(filter(None, [reason, detail, _alike(other)])) for row, reason, detail, other in found}


def _alike(other: int | None) -> str:
    return "" if other is None else f"like row {other:,}"


def _readable(version: Version, card: dict[str, Any]) -> str:
    """One conversation under a line of what is known of it."""
    example: Example = card["example"]
    known = [str(card[name]) for name in ("source", "language", "family", "licence") if card[name]]
    head = f"── {version} row {card['row']:,}  {', '.join(known)}, {card['chars']:,} characters, {card['location']}"
    lines = [head, *([f"   dropped: {card['dropped']}"] if "dropped" in card else [])]
    for turn in example.messages:
        text = UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", turn.content[:MOST_CHARS])
        left = len(turn.content) - MOST_CHARS
        lines += [f"[{turn.role}]", text + (f"\n… ({left:,} characters more)" if left > 0 else "")]
    return "\n".join(lines)


def materialized(home: Path, names: Sequence[str], out: Path, force: bool) -> str:
    """Write pools and all that was made of them to one DuckDB file; says each table on stderr, and what came of it."""
    from flows.console import ConsoleListener
    from warehouse.materialize import materialize

    with ConsoleListener() as listener:
        written = materialize(
            home, names, out, force=force, tell=lambda table, rows: listener.say(f"{table:<14} {rows:>12,} rows")
        )
    return f"wrote {sum(written.rows.values()):,} rows in {len(written.rows)} tables, {written.bytes:,} bytes, to {out}"
