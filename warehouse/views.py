"""The tables an analyst sees: views over globs of the artifacts' Parquet, each with its columns and a question."""

from collections.abc import Mapping
from dataclasses import dataclass

from warehouse import lineage


@dataclass(frozen=True, slots=True)
class View:
    """One table an analyst sees: what a row is, its SQL over `{home}`, its columns, and a question it answers."""

    about: str
    sql: str
    columns: Mapping[str, str]
    question: str
    example: str


def _parquet(pattern: str) -> str:
    return f"SELECT * FROM read_parquet('{{home}}/{pattern}', union_by_name = true, hive_partitioning = false)"


# The files of a pool are shared with its other versions: its key is the name of their folder, and the number of their
# first row is in their own name. A query that names a pool opens that pool's files alone.
_SAMPLES = """SELECT split_part(filename, '/', -2) AS pool,
           split_part(parse_filename(filename, true), '-', 2)::BIGINT + file_row_number AS "row",
           * EXCLUDE (filename, file_row_number)
    FROM read_parquet('{home}/artifacts/*/*/samples-*.parquet', union_by_name = true, filename = true,
                      file_row_number = true, hive_partitioning = false)"""
_REJECTS = """SELECT split_part(filename, '/', -2) AS pool, * EXCLUDE (filename)
    FROM read_parquet('{home}/artifacts/*/*/rejects-*.parquet', union_by_name = true, filename = true,
                      hive_partitioning = false)"""
_TOKENS = """SELECT d.pool, split_part(parse_filename(t.filename, true), '-', 2)::BIGINT + t.file_row_number AS "row",
           d.model, d.tokenizer, t.tokens
    FROM read_parquet('{home}/artifacts/describe/*/tokens-*.parquet', filename = true, file_row_number = true,
                      hive_partitioning = false) t
    JOIN read_parquet('{home}/artifacts/describe/*/describe.parquet', hive_partitioning = false) d
      ON d.description = split_part(t.filename, '/', -2)"""
_POOLS = """SELECT pool, name, row_number() OVER (PARTITION BY name ORDER BY made) AS version,
           * EXCLUDE (pool, name, made), made
    FROM read_parquet('{home}/artifacts/*/*/pool.parquet', union_by_name = true, hive_partitioning = false)"""
_FOUND = {
    "cleaning": "key of the filter's artifact",
    "pool": "key of the pool version",
    "row": "row of the pool",
    "sample_id": "its hash",
    "source": "where the row came from",
    "filter": "name of the filter",
    "reason": "from the filter's closed list",
    "detail": "what was found, or why",
    "other_pool": "pool, target or test set of the row it resembles",
    "other_row": "the row it resembles",
    "value": "similarity, coverage or share, where the filter measures one",
}


VIEWS: dict[str, View] = {
    "pools": View(
        "One row per pool version: pools, target sets and test sets alike.",
        _POOLS,
        {
            "pool": "key of the version",
            "name": "name given in the recipe or on the command line",
            "version": "number of the version among those of its name, from 1, by the time it was first made",
            "n": "rows kept",
            "sources": "list of {source, rows}",
            "rows_in": "rows read",
            "rejected": "rows not kept; see `rejects`",
            "made": "UTC",
        },
        "Which pools are there, and how many rows did each lose on import?",
        "SELECT name, version, n, rejected, pool FROM pools ORDER BY name, version",
    ),
    "samples": View(
        "One row per row of a pool version. Name the pool in a query: only its files are opened then.",
        _SAMPLES,
        {
            "pool": "key of the pool version",
            "row": "row number, from 0: with `pool` the identity of the row",
            "sample_id": "hash of the canonical messages; duplicates share it",
            "prompt_id": "hash of the user turns with case and white space folded",
            "source": "where the row came from",
            "location": "file and line (from 1) or row (from 0) it was read at",
            "given_id": "the id that the source gave it, if any",
            "messages": "list of {role, content}",
            "turns": "number of messages",
            "chars": "characters of all messages",
            "language": "ISO 639-1 code; `und` where it cannot be told",
            "has_code": "whether a turn holds program text",
            "has_math": "whether a turn holds formulas or calculations",
            "family": "task family, where the row names one (skill, task, category, ...)",
            "licence": "licence of the row, else of its source",
            "meta": "all other columns of the source, as JSON",
        },
        "What does each source hold?",
        "SELECT source, count(*) AS n, round(avg(chars)) AS chars FROM samples GROUP BY source ORDER BY n DESC",
    ),
    "token_counts": View(
        "One row per row of a pool version and tokenizer that a run counted with.",
        _TOKENS,
        {
            "pool": "key of the pool version",
            "row": "row of the pool",
            "model": "model whose tokenizer counted",
            "tokenizer": "content hash of the model",
            "tokens": "tokens of the whole row, in the model's chat template",
        },
        "How many tokens does each pool hold?",
        "SELECT pool, model, sum(tokens) AS tokens, max(tokens) AS longest FROM token_counts GROUP BY ALL",
    ),
    "rejects": View(
        "One row per row that was not kept on import, with its reason.",
        _REJECTS,
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
    "filters": View(
        "One row per cleaning filter and source: what came in, what it found, what went on.",
        _parquet("artifacts/*/*/filters.parquet"),
        {
            "cleaning": "key of the filter's artifact",
            "pool": "key of the pool version",
            "step": "place in the order of filters, from 1",
            "filter": "name of the filter",
            "params": "its parameters, JSON",
            "action": "drop, or flag: report and keep",
            "source": "where the rows came from",
            "rows_in": "rows that earlier filters left",
            "found": "rows that it found",
            "rows_out": "rows it left: rows_in less what it dropped",
        },
        "What share of each source survived each filter?",
        """SELECT pool, source, step, filter, round(rows_out / nullif(rows_in, 0), 3) AS kept FROM filters
           ORDER BY pool, source, step""",
    ),
    "drops": View(
        "One row per candidate that a filter kept out of selection, or that asks what a target or test row asks.",
        _parquet("artifacts/*/*/drops.parquet"),
        _FOUND,
        "Why were rows of a pool dropped?",
        "SELECT filter, reason, count(*) AS n FROM drops GROUP BY ALL ORDER BY n DESC",
    ),
    "flags": View(
        "One row per row and filter that only reports: the row stays a candidate.",
        _parquet("artifacts/*/*/flags.parquet"),
        _FOUND,
        "What was flagged?",
        "SELECT filter, reason, count(*) AS n FROM flags GROUP BY ALL ORDER BY n DESC",
    ),
    "neighbours": View(
        "One row per listed target or test row with the candidate next to it: for a person to look at.",
        _parquet("artifacts/*/*/neighbours.parquet"),
        {
            "cleaning": "key of the filter's artifact",
            "pool": "key of the pool version",
            "set": "target or test",
            "rank": "from 1: the nearest first",
            "row": "row of the pool",
            "sample_id": "its hash",
            "other_pool": "key of the target or test set",
            "other_row": "row of that set",
            "value": "cosine of the two vectors",
        },
        "What in the pool is next to the target and test rows?",
        """SELECT n.set, n.rank, round(n.value, 3) AS cosine, t.messages[1].content AS other,
                  s.messages[1].content AS content
           FROM neighbours n JOIN samples s USING (pool, "row")
           JOIN samples t ON t.pool = n.other_pool AND t."row" = n.other_row ORDER BY n.set, n.rank""",
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
        "One row per chosen row: the sample with its rank, score and reason.",
        """SELECT c.selection, s.method, s.budget, s.seed, c.* EXCLUDE (selection)
        FROM read_parquet('{home}/artifacts/select/*/selected.parquet', union_by_name = true,
                          hive_partitioning = false) c
        JOIN selections s USING (selection)""",
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
            "language": "ISO 639-1 code; `und` where it cannot be told",
            "has_code": "whether a turn holds program text",
            "has_math": "whether a turn holds formulas or calculations",
            "family": "task family, where the row names one",
            "licence": "licence of the row, else of its source",
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
        FROM read_parquet('{home}/runs/*/run.parquet', union_by_name = true, hive_partitioning = false) r
        LEFT JOIN read_parquet('{home}/runs/*/end.parquet', union_by_name = true, hive_partitioning = false) e
          USING (run)""",
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
        FROM read_json('{home}/artifacts/*/*/manifest.json', hive_partitioning = false,
            columns = {{stage: 'VARCHAR', key: 'VARCHAR',
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
    "lineage": View(
        "One row per artifact or signal and each thing that it was made from, near and far; see `winnow lineage` too.",
        lineage.VIEW,
        {
            "key": "key of what was made",
            "stage": "kind of stage that made it",
            "ancestor": "key of an artifact or of a signal's spec, or content hash of a source file",
            "ancestor_stage": "its stage, or signal, source, or gone (removed by hand)",
            "role": "path of the inputs that lead to it, for instance checkpoint.data.signals.representation",
            "depth": "steps on the shortest path, from 1",
        },
        "What was each evaluation made from?",
        "SELECT ancestor_stage, role, ancestor FROM lineage WHERE stage = 'evaluate' ORDER BY key, depth, role",
    ),
}
