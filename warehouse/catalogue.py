"""The DuckDB catalogue: a file of views over globs of the artifacts' Parquet, and nothing else.

The pipeline never holds the file open, so an analyst's shell cannot block a run nor a run an analyst. Views are created
once; new artifacts appear in them by themselves. Delete the file and `open_catalogue` rebuilds it.
"""

import json
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from warehouse import tables
from warehouse.errors import InputError
from warehouse.pool_writer import POOL_SCHEMA, REJECTS_SCHEMA, SAMPLES_SCHEMA
from warehouse.records import canonical, digest
from warehouse.store import write_atomically
from warehouse.tables import write_rows

VERSION = 1


@dataclass(frozen=True, slots=True)
class View:
    """One table an analyst sees: what a row is, its SQL over `{home}`, its columns, and a question it answers."""

    about: str
    sql: str
    columns: Mapping[str, str]
    question: str
    example: str


def _parquet(pattern: str) -> str:
    return f"SELECT * FROM read_parquet('{{home}}/{pattern}', union_by_name = true)"


VIEWS: dict[str, View] = {
    "pools": View(
        "One row per pool version: pools, target sets and test sets alike.",
        _parquet("artifacts/*/*/pool.parquet"),
        {
            "pool": "key of the version",
            "name": "name given in the recipe or on the command line",
            "n": "rows kept",
            "sources": "list of {source, rows}",
            "rows_in": "rows read",
            "rejected": "rows not kept; see `rejects`",
        },
        "Which pools are there, and how many rows did each lose on import?",
        "SELECT name, n, rejected, pool FROM pools ORDER BY n DESC",
    ),
    "samples": View(
        "One row per row of a pool version.",
        _parquet("artifacts/*/*/samples-*.parquet"),
        {
            "pool": "key of the pool version",
            "row": "row number, from 0: with `pool` the identity of the row",
            "sample_id": "hash of the canonical messages; duplicates share it",
            "prompt_id": "hash of the user turns with case and white space folded",
            "source": "where the row came from",
            "messages": "list of {role, content}",
            "turns": "number of messages",
            "chars": "characters of all messages",
            "meta": "all other columns of the source, as JSON",
        },
        "What does each source hold?",
        "SELECT source, count(*) AS n, round(avg(chars)) AS chars FROM samples GROUP BY source ORDER BY n DESC",
    ),
    "rejects": View(
        "One row per row that was not kept, with its reason.",
        _parquet("artifacts/*/*/rejects-*.parquet"),
        {
            "pool": "key of the pool version that lacks it",
            "source": "where the row came from",
            "location": "file and line or row",
            "reason": "from a closed list",
            "detail": "excerpt or explanation",
        },
        "Why were rows dropped?",
        "SELECT source, reason, count(*) AS n FROM rejects GROUP BY ALL ORDER BY n DESC",
    ),
    "excluded": View(
        "One row per candidate that was kept out of selection because a target or test row asks the same.",
        _parquet("artifacts/*/*/excluded.parquet"),
        {
            "pool": "key of the pool version",
            "row": "row of the pool",
            "sample_id": "its hash",
            "reason": "same_messages_as_target, same_prompt_as_target, same_messages_as_test or same_prompt_as_test",
            "other_row": "row of the target or test set",
        },
        "Is any test row in the pool?",
        "SELECT reason, count(*) AS n FROM excluded GROUP BY reason",
    ),
    "signals": View(
        "One row per measured row and signal. Vectors are kept in `.npy` files at `position` of `shard`.",
        _parquet("signals/*/shard-*.parquet"),
        {
            "signal": "name of the signal",
            "spec": "key of the signal's spec (model, template, pooling, ...)",
            "shard": "file stem under signals/<spec>/",
            "position": "row within the shard's arrays",
            "sample_id": "the row measured",
            "value": "the number, where the signal is one; null for vectors",
        },
        "What has been measured?",
        "SELECT signal, spec, count(*) AS n FROM signals GROUP BY ALL",
    ),
    "selections": View(
        "One row per selection.",
        _parquet("artifacts/select/*/selection.parquet"),
        {
            "selection": "key of the selection",
            "pool": "key of the pool version it was made from",
            "method": "name of the method",
            "spec": "key of the method with all parameters",
            "params": "parameters, JSON",
            "budget": "rows asked for",
            "seed": "seed of the draw",
            "rows": "rows chosen",
            "direction": "what a high score means",
            "cutoff": "score of the last row chosen",
            "diagnostics": "what the method measured about itself, JSON",
        },
        "What was selected, and how?",
        "SELECT method, budget, seed, rows, cutoff FROM selections ORDER BY method, seed",
    ),
    "selected": View(
        "One row per chosen row: `samples` joined to rank, score and reason.",
        """SELECT c.selection, s.method, s.budget, s.seed, c.rank, c.score, c.weight, c.reason, c.pool, c."row",
               c.sample_id, m.source, m.messages, m.turns, m.chars, m.meta
        FROM read_parquet('{home}/artifacts/select/*/selected.parquet', union_by_name = true) c
        JOIN selections s USING (selection)
        JOIN samples m ON m.pool = c.pool AND m."row" = c."row" """,
        {
            "selection": "key of the selection",
            "method": "name of the method",
            "budget": "rows asked for",
            "seed": "seed of the draw",
            "rank": "from 1: best first",
            "score": "the method's score; its direction is in `selections`",
            "weight": "above 0",
            "reason": "why this row, as the method says it",
            "pool": "key of the pool version",
            "row": "row of the pool",
            "sample_id": "hash of the messages",
            "source": "where the row came from",
            "messages": "list of {role, content}",
            "turns": "number of messages",
            "chars": "characters of all messages",
            "meta": "all other columns of the source, JSON",
        },
        "What did a method take from each source?",
        "SELECT method, source, count(*) AS n FROM selected WHERE seed = 0 GROUP BY ALL ORDER BY method, n DESC",
    ),
    "generations": View(
        "One row per synthesized row that was accepted.",
        _parquet("artifacts/synthesize/*/generations.parquet"),
        {
            "generation": "key of the synthesis",
            "row": "order in which it was made",
            "sample_id": "hash of the messages",
            "synthesizer": "name of the synthesizer",
            "params": "its parameters, JSON",
            "seed": "seed of the job",
            "source": "source label it was given",
            "meta": "what is known of the row (skill, noise, ...), JSON",
        },
        "How much of what was synthesized is noisy?",
        "SELECT source, meta->>'noise' AS noise, count(*) AS n FROM generations GROUP BY ALL ORDER BY n DESC",
    ),
    "checkpoints": View(
        "One row per fine-tuned model.",
        _parquet("artifacts/train/*/checkpoint.parquet"),
        {
            "checkpoint": "key of the checkpoint",
            "base": "base model, as the user named it",
            "base_fingerprint": "content hash of the base model",
            "trainer": "name of the trainer",
            "params": "its parameters, JSON",
            "data": "key of the selection it was trained on",
            "seed": "training seed",
            "rows": "rows trained on, after the row guard",
            "tokens": "tokens processed, all epochs",
            "label_tokens": "tokens the loss saw, all epochs",
            "steps": "optimizer steps",
            "seconds": "wall seconds of training",
            "flops": "6 × trainable and 4 × frozen parameters, × tokens",
            "peak_memory_bytes": "peak memory of the process",
            "precision": "float32 or bf16",
        },
        "What did training cost?",
        "SELECT data, seed, rows, tokens, seconds, flops FROM checkpoints",
    ),
    "losses": View(
        "One row per logged training step.",
        _parquet("artifacts/train/*/losses.parquet"),
        {
            "checkpoint": "key of the checkpoint",
            "step": "optimizer step",
            "epoch": "epochs done",
            "loss": "nats per label token",
            "learning_rate": "at this step",
            "gradient_norm": "before clipping",
            "tokens": "tokens so far",
            "seconds": "seconds so far",
        },
        "How did the loss fall?",
        "SELECT checkpoint, step, loss FROM losses ORDER BY checkpoint, step",
    ),
    "evaluations": View(
        "One row per checkpoint, task and metric, with its 95 % interval.",
        _parquet("artifacts/evaluate/*/evaluation.parquet"),
        {
            "evaluation": "key of the evaluation",
            "checkpoint": "key of the checkpoint",
            "task": "name of the task",
            "spec": "key of the task with all parameters",
            "params": "its parameters, JSON",
            "metric": "name of the metric",
            "value": "mean over items",
            "low": "lower end of the interval",
            "high": "upper end of the interval",
            "n": "items",
            "seed": "seed of the bootstrap",
        },
        "How good is each checkpoint?",
        "SELECT checkpoint, metric, value, low, high, n FROM evaluations",
    ),
    "eval_items": View(
        "One row per evaluated item and metric.",
        _parquet("artifacts/evaluate/*/eval_items.parquet"),
        {
            "evaluation": "key of the evaluation",
            "checkpoint": "key of the checkpoint",
            "task": "name of the task",
            "item_id": "the item",
            "group": "skill or source of the item, where known",
            "metric": "name of the metric",
            "value": "outcome of this item",
            "prompt": "what the model was asked",
            "reply": "what it said, verbatim",
            "parsed": "what was graded",
            "gold": "the right answer",
            "n_tokens": "tokens of the gold answer: what weighs a loss per token",
            "finish_reason": "stop or length",
            "prompt_hash": "hash of the prompt: pairing two runs needs it equal",
            "doc_hash": "hash of the whole item",
            "target_hash": "hash of the gold answer",
        },
        "What does the model get wrong?",
        "SELECT prompt, reply, gold FROM eval_items WHERE metric = 'exact_match' AND value = 0 LIMIT 10",
    ),
    "results": View(
        "One row per method, budget, task and metric of a race: mean over seeds, and difference to balanced random.",
        _parquet("artifacts/compare/*/results.parquet"),
        {
            "comparison": "key of the comparison",
            "method": "name of the method",
            "budget": "rows",
            "seeds": "seeds, JSON",
            "task": "name of the task",
            "metric": "name of the metric",
            "value": "mean over seeds and items",
            "low": "lower end of the 95 % interval",
            "high": "upper end",
            "n": "items",
            "difference": "method minus balanced random, paired by item and seed",
            "difference_low": "lower end of its 95 % interval",
            "difference_high": "upper end",
            "seed_differences": "the difference of each seed, JSON",
            "verdict": "better, worse, or no difference shown (with the minimum detectable effect)",
            "selections": "keys of the selections, one per seed, JSON",
            "evaluations": "keys of the evaluations, one per seed, JSON",
            "checkpoints": "keys of the checkpoints, one per seed, JSON",
            "seconds": "wall seconds of selecting and training, all seeds",
            "flops": "measuring the pool and training, all seeds",
        },
        "Which method won?",
        "SELECT method, metric, value, difference, difference_low, difference_high, verdict FROM results",
    ),
    "runs": View(
        "One row per run. A run without an end is still going or was killed.",
        """SELECT r.run, r.recipe, r.command, r.started, e.ended, coalesce(e.status, 'running or killed') AS status,
               e.error, e.report, r.version, r.recipe_text
        FROM read_parquet('{home}/runs/*/run.parquet', union_by_name = true) r
        LEFT JOIN read_parquet('{home}/runs/*/end.parquet', union_by_name = true) e USING (run)""",
        {
            "run": "id, sorts by time",
            "recipe": "name of the recipe",
            "command": "the verb: run, demo or select",
            "started": "UTC",
            "ended": "UTC, null while it goes on",
            "status": "done, failed, cancelled, or 'running or killed'",
            "error": "one line, where it failed",
            "report": "path of the HTML report",
            "version": "version of Winnow",
            "recipe_text": "the recipe with all overrides and defaults, YAML",
        },
        "What ran last night?",
        "SELECT run, recipe, status, ended - started AS took FROM runs ORDER BY run DESC LIMIT 10",
    ),
    "stages": View(
        "One row per stage of a run.",
        _parquet("runs/*/stage-*.parquet"),
        {
            "run": "the run",
            "name": "what the run calls the stage",
            "stage": "kind of stage",
            "key": "key of its artifact",
            "computed": "false where the result was already there",
            "started": "UTC",
            "seconds": "wall seconds",
            "rows_in": "rows that came in",
            "rows_out": "rows that went out",
            "dropped": "rows dropped by reason, JSON",
        },
        "What was computed, what came from the cache?",
        "SELECT run, count(*) FILTER (computed) AS computed, count(*) AS stages FROM stages GROUP BY run",
    ),
    "artifacts": View(
        "One row per artifact of the store.",
        """SELECT stage, key, created, seconds, version, params, inputs, model, seed, facts, files,
               list_sum(list_transform(json_extract(files, '$.*.bytes'), lambda b: b::BIGINT))::BIGINT AS bytes
        FROM read_json('{home}/artifacts/*/*/manifest.json', columns = {{stage: 'VARCHAR', key: 'VARCHAR',
            created: 'TIMESTAMPTZ', seconds: 'DOUBLE', version: 'INTEGER', params: 'JSON', inputs: 'JSON',
            model: 'VARCHAR', seed: 'BIGINT', facts: 'JSON', files: 'JSON'}})
        WHERE stage IS NOT NULL""",
        {
            "stage": "kind of stage that made it",
            "key": "its content key",
            "created": "UTC",
            "seconds": "what making it took",
            "version": "version of the stage's code",
            "params": "all parameters, JSON",
            "inputs": "keys of what it was made from, JSON",
            "model": "content hash of the model, where one was used",
            "seed": "seed, where one was used",
            "facts": "what the stage noted, JSON",
            "files": "name to bytes and SHA-256, JSON",
            "bytes": "size of all files",
        },
        "What fills the disk?",
        "SELECT stage, count(*) AS n, sum(bytes) / 1e6 AS megabytes FROM artifacts GROUP BY stage ORDER BY 3 DESC",
    ),
}

# An empty typed file per glob keeps every view valid before the first artifact of its kind.
EMPTIES: dict[str, pa.Schema] = {
    "artifacts/ingest/empty/pool.parquet": POOL_SCHEMA,
    "artifacts/ingest/empty/samples-empty.parquet": SAMPLES_SCHEMA,
    "artifacts/ingest/empty/rejects-empty.parquet": REJECTS_SCHEMA,
    "artifacts/overlap/empty/excluded.parquet": tables.EXCLUDED,
    "artifacts/select/empty/selection.parquet": tables.SELECTION,
    "artifacts/select/empty/selected.parquet": tables.SELECTED,
    "artifacts/synthesize/empty/generations.parquet": tables.GENERATIONS,
    "artifacts/train/empty/checkpoint.parquet": tables.CHECKPOINT,
    "artifacts/train/empty/losses.parquet": tables.LOSSES,
    "artifacts/evaluate/empty/evaluation.parquet": tables.EVALUATION,
    "artifacts/evaluate/empty/eval_items.parquet": tables.EVAL_ITEMS,
    "artifacts/compare/empty/results.parquet": tables.RESULTS,
    "runs/empty/run.parquet": tables.RUN,
    "runs/empty/end.parquet": tables.RUN_END,
    "runs/empty/stage-empty.parquet": tables.STAGE,
    "signals/empty/shard-empty.parquet": tables.SIGNALS,
}


def ensure(home: Path) -> Path:
    """The catalogue file of `home`, built where it is missing, moved or of another schema version."""
    path, stamp = home / "winnow.duckdb", home / "catalogue.json"
    current = json.dumps({"version": VERSION, "home": str(home), "views": digest_views()})
    if not path.exists() or not stamp.exists() or stamp.read_text() != current:
        rebuild(home)
        write_atomically(stamp, current.encode())
    return path


def digest_views() -> str:
    """Changes when the definition of any view changes."""
    return digest(canonical({name: view.sql for name, view in VIEWS.items()}))


def rebuild(home: Path) -> None:
    """Build the catalogue as a new file and put it in place in one step; readers of the old file are not disturbed."""
    for name, schema in EMPTIES.items():
        file = home / name
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            draft = file.with_name(f".{uuid.uuid4().hex}")
            write_rows(draft, schema, [])
            os.replace(draft, file)
    nothing = home / "artifacts" / "empty" / "empty" / "manifest.json"
    nothing.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(nothing, b"{}")
    (home / "tmp").mkdir(exist_ok=True)
    draft = home / "tmp" / f"catalogue-{uuid.uuid4().hex}.duckdb"
    with duckdb.connect(str(draft)) as connection:
        for name, view in VIEWS.items():
            connection.execute(f"CREATE VIEW {name} AS {view.sql.format(home=_quoted(home))}")
    os.replace(draft, home / "winnow.duckdb")


def connect(home: Path) -> duckdb.DuckDBPyConnection:
    """A read-only connection to the catalogue of `home`. Never held open by the pipeline."""
    return duckdb.connect(str(ensure(home)), read_only=True)


def query(home: Path, sql: str) -> pa.Table:
    """The answer to one SQL query over the catalogue. Raises `InputError` where DuckDB refuses the query."""
    try:
        with connect(home) as connection:
            answer = connection.sql(sql)
            if answer is None:
                raise InputError("the warehouse is read-only: ask with SELECT, DESCRIBE or SHOW")
            return answer.to_arrow_table()
    except (duckdb.Error, RuntimeError) as error:
        raise InputError(f"the query failed: {_first_lines(str(error))}. Tables: {', '.join(VIEWS)}") from error


def _quoted(home: Path) -> str:
    """The path as part of a glob inside an SQL string: quotes doubled, glob characters taken literally."""
    return re.sub(r"([*?\[])", r"[\1]", str(home)).replace("'", "''")


def _first_lines(text: str) -> str:
    return re.sub(r"\s+", " ", text.strip())[:400].rstrip(".")
