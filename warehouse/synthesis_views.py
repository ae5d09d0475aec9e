"""The views over what synthesizers made: rows, the replies behind them, and every try to get these."""

from collections.abc import Mapping

from warehouse.view import View, parquet

SUPERSEDED = """(SELECT continues FROM read_parquet('{home}/artifacts/synthesize/*/synthesis.parquet',
                      union_by_name = true, hive_partitioning = false) WHERE continues IS NOT NULL)"""
"""Keys of syntheses that a later run went on with: it holds all their rows, replies and tries too."""


def latest(pattern: str) -> str:
    """The SQL of the rows below `artifacts/synthesize` of syntheses that no later round went on with."""
    return f"{parquet(f'artifacts/synthesize/*/{pattern}')} WHERE generation NOT IN {SUPERSEDED}"


SYNTHESIS_VIEWS: Mapping[str, View] = {
    "syntheses": View(
        "One row per synthesis, and per round of one that went on because rows had no answer.",
        parquet("artifacts/synthesize/*/synthesis.parquet"),
        {
            "generation": "key of the synthesis",
            "continues": "key of the round before; null for the first. Other views show the last round alone",
            "synthesizer": "name of the synthesizer",
            "params": "its parameters, JSON",
            "models": "model of each role, JSON",
            "seed": "seed of the job",
            "seeds": "key of the pool or selection it started from",
            "accepted": "rows accepted",
            "refused": "rows refused, see `rejects`",
            "unanswered": "requests that nobody answered, asked for again by the next run",
            "requests": "tries, failed ones included",
            "prompt_tokens": "tokens of prompts that were charged",
            "completion_tokens": "tokens of replies that were charged",
            "cost_usd": "what all tries cost by the endpoints' prices; null without prices",
        },
        "What did an accepted row cost?",
        "SELECT synthesizer, models, accepted, cost_usd / nullif(accepted, 0) AS usd_a_row FROM syntheses "
        "WHERE generation NOT IN (SELECT continues FROM syntheses WHERE continues IS NOT NULL)",
    ),
    "generations": View(
        "One row per synthesized row that was accepted.",
        latest("generations.parquet"),
        {
            "generation": "key of the synthesis",
            "row": "order in which it was made",
            "sample_id": "hash of the messages",
            "synthesizer": "name of the synthesizer",
            "params": "its parameters, JSON",
            "models": "model of each role, JSON",
            "seed": "seed of the job",
            "source": "source label it was given",
            "licence": "licence of the seeds it was made from",
            "parents": "sample ids of those seeds",
            "replies": "keys of the model replies behind it, see `replies`",
            "meta": "what is known of the row (skill, noise, ...), JSON",
        },
        "How much of what was synthesized is noisy?",
        "SELECT source, meta->>'noise' AS noise, count(*) AS n FROM generations GROUP BY ALL ORDER BY n DESC",
    ),
    "replies": View(
        "One row per reply of a model that a synthesis heard.",
        latest("replies.parquet"),
        {
            "generation": "key of the synthesis",
            "reply": "key of the reply: a hash of the whole request",
            "model": "model that was asked",
            "served_model": "model that says it answered",
            "prompt": "messages that were sent, JSON",
            "params": "sampling parameters that were sent, JSON",
            "text": "text of the reply, as it came",
            "finish_reason": "stop, length or error",
            "failure": "why there is no text to use; empty where there is",
            "prompt_tokens": "tokens of the prompt",
            "completion_tokens": "tokens of the reply",
            "seconds": "seconds until the reply was there",
            "cost_usd": "what the reply cost by the endpoint's prices; null without prices",
            "made": "when it came",
        },
        "What did each model cost?",
        "SELECT model, count(*) AS replies, sum(completion_tokens) AS tokens, sum(cost_usd) AS usd "
        "FROM (SELECT DISTINCT ON (reply) * FROM replies) GROUP BY ALL",
    ),
    "attempts": View(
        "One row per try to get a reply, failures included.",
        latest("attempts.parquet"),
        {
            "generation": "key of the synthesis",
            "reply": "key of the request",
            "number": "number of the try, from 1",
            "model": "model that was asked",
            "started": "when it was sent",
            "seconds": "seconds until it ended",
            "status": "HTTP status, null where none came",
            "outcome": "class of its end (ok, throttled, transient, ...)",
            "error": "what the server said",
            "prompt_tokens": "tokens of the prompt that were charged",
            "completion_tokens": "tokens of the reply that were charged",
            "cost_usd": "what the try cost by the endpoint's prices; null without prices",
        },
        "How did tries end?",
        "SELECT model, outcome, count(*) AS n, median(seconds) AS seconds FROM attempts GROUP BY ALL ORDER BY n DESC",
    ),
}
