"""The tables of mixtures and of advice."""

from collections.abc import Mapping

from warehouse.view import View, known_by_rows, parquet

ADVICE_VIEWS: Mapping[str, View] = {
    "mixtures": View(
        "One row per source of a mixture: how many of its rows a training file holds.",
        known_by_rows("artifacts/mixture/*/mixture.parquet", "mixture"),
        {
            "mixture": "key of the mixture",
            "pool": "key of the pool version",
            "source": "where the rows came from",
            "share": "of the mixture that the source was to have",
            "rows": "rows it gave, repeats counted",
            "repeats": "of these, rows that were there before: the source was exhausted",
            "available": "candidates of the source",
            "seed": "seed of the draw; null for the stages of an ordered manifest, which say their rows",
            "purpose": "pilot, advised, or the name of a training stage",
            "data": "key of the rows of the training file; other mixtures and selections may have the same",
        },
        "How good was every pilot run?",
        """SELECT m.mixture, sum(m.rows) AS n, string_agg(m.source || ' ' || m.share, ', ') AS shares, c.seed, e.value
           FROM mixtures m JOIN checkpoints c USING (data, seed) JOIN evaluations e USING (checkpoint)
           WHERE e.metric = 'nll' GROUP BY m.mixture, c.seed, e.value, e.task ORDER BY e.value""",
    ),
    "advice": View(
        "One row per thing that an advisor said, and per pilot run it was said from.",
        parquet("artifacts/advice/*/advice.parquet"),
        {
            "advice": "key of the advice",
            "pool": "key of the pool version",
            "advisor": "name of the advisor",
            "params": "its parameters, JSON",
            "budget": "rows that advice was wanted for",
            "kind": "share, forecast, manifest, refusal, warning or pilot",
            "name": "of the source, of what is forecast, of the training stage, or the reason from the closed list",
            "value": "the share, the forecast, the rows of a stage, the metric of a pilot run; null where it failed",
            "low": "lower end of the 95 % interval",
            "high": "upper end",
            "n": "runs or items behind the value",
            "detail": "the numbers behind a refusal or warning; why a run failed",
            "mixture": "key of the mixture that a pilot run was trained on",
        },
        "What was advised, and how sure is it?",
        "SELECT advice, advisor, budget, kind, name, value, low, high, detail FROM advice WHERE kind <> 'pilot'",
    ),
}
