"""The tables of what models were examined with: outcomes, the parts of a test, repeats, contamination, comparisons."""

from collections.abc import Mapping

from warehouse.view import View, parquet


def _quarter(column: str) -> str:
    """SQL of the quarter of the test's items that an item's `column` falls into, 'quarter 1' the shortest."""
    cuts = " + ".join(f"({column} > quantile_disc({column}, {q}) OVER test)::INT" for q in (0.25, 0.5, 0.75))
    return f"'quarter ' || (1 + {cuts})"


_WILSON = """(avg(value) + 1.9208 / count(*) {sign} 1.96 * sqrt(avg(value) * (1 - avg(value)) / count(*)
                   + 0.9604 / count(*) ** 2)) / (1 + 3.8416 / count(*))"""
# Wilson's interval where every item is right or wrong, else the mean and 1.96 standard errors.
_BOUNDS = f"""CASE WHEN bool_and(value IN (0, 1)) THEN {_WILSON}
             ELSE avg(value) {{sign}} 1.96 * stddev_samp(value) / sqrt(count(*)) END"""
_SLICES = f"""WITH items AS (
        SELECT evaluation, checkpoint, task, metric, item_id, avg(value) AS value, max(n_tokens) AS n_tokens,
               max(prompt_tokens) AS prompt_tokens, max(choices) AS choices, any_value(ability) AS ability,
               any_value(level) AS level, any_value(difficulty) AS difficulty, any_value(language) AS language,
               any_value(source) AS source
        FROM eval_items GROUP BY evaluation, checkpoint, task, metric, item_id
    ), quartered AS (
        SELECT *, {_quarter("prompt_tokens")} AS prompt_quarter, {_quarter("n_tokens")} AS gold_quarter
        FROM items WINDOW test AS (PARTITION BY evaluation, metric)
    ), labelled AS (
        SELECT *, unnest([
            struct_pack("by" := 'ability', slice := ability), struct_pack("by" := 'level', slice := level),
            struct_pack("by" := 'difficulty', slice := difficulty), struct_pack("by" := 'language', slice := language),
            struct_pack("by" := 'source', slice := source),
            struct_pack("by" := 'prompt length', slice := prompt_quarter),
            struct_pack("by" := 'gold length', slice := gold_quarter)
        ]) AS label FROM quartered
    )
    SELECT evaluation, checkpoint, task, metric, label['by'] AS "by", label['slice'] AS slice, count(*) AS n,
           avg(value) AS value, {_BOUNDS.format(sign="-")} AS low, {_BOUNDS.format(sign="+")} AS high,
           CASE WHEN min(choices) > 0 THEN avg(1 / choices) END AS chance
    FROM labelled WHERE label['slice'] <> '' GROUP BY ALL"""


_REPEATS = """WITH tried AS (
        SELECT evaluation, checkpoint, task, metric, item_id, count(*) AS repeats,
               (count(DISTINCT value) > 1)::INT AS changed, stddev_samp(value) AS spread
        FROM eval_items GROUP BY evaluation, checkpoint, task, metric, item_id HAVING count(*) > 1
    ), rounds AS (
        SELECT evaluation, metric, stddev_samp(value) AS deviation
        FROM (SELECT evaluation, metric, repeat, avg(value) AS value FROM eval_items GROUP BY ALL) GROUP BY ALL
    )
    SELECT evaluation, checkpoint, task, metric, count(*) AS n, max(repeats) AS repeats, avg(changed) AS changed,
           avg(spread) AS spread, any_value(deviation) AS deviation
    FROM tried JOIN rounds USING (evaluation, metric) GROUP BY evaluation, checkpoint, task, metric"""

# What says right or wrong, the first of these that an item has; the order of `eval.metrics`.
RIGHT = ("exact_match", "numeric_match", "accuracy", "accuracy_norm", "lowest_perplexity", "prompt_strict",
         "prompt_loose", "refusal_right")  # fmt: skip
_BINS = 10
_RELIABILITY = f"""WITH items AS (
        SELECT evaluation, checkpoint, task, metric, item_id, avg(value) AS value
        FROM eval_items WHERE metric = 'confidence' OR metric IN {RIGHT} GROUP BY ALL
    ), verdicts AS (
        SELECT *, list_position({list(RIGHT)}, metric) AS place FROM items WHERE metric <> 'confidence'
        QUALIFY place = min(place) OVER (PARTITION BY evaluation)
    ), binned AS (
        SELECT c.evaluation, c.checkpoint, c.task, v.metric AS right_by, v.value, c.value AS confidence,
               1 + list_sum([(c.value > edge / {_BINS})::INT FOR edge IN range(1, {_BINS})]) AS bin
        FROM items c JOIN verdicts v USING (evaluation, item_id) WHERE c.metric = 'confidence'
    )
    SELECT evaluation, checkpoint, task, right_by, bin::INT AS bin, (bin - 1) / {_BINS} AS above,
           bin / {_BINS} AS at_most, count(*) AS n, avg(confidence) AS confidence, avg(value) AS value,
           {_WILSON.format(sign="-")} AS low, {_WILSON.format(sign="+")} AS high
    FROM binned GROUP BY ALL"""

_GROWTH = """SELECT r.comparison, r.method, r.budget, s.task, s.metric, s.slice AS ability, max(s.n) AS n,
           count(*) AS seeds, avg(s.value) AS value, min(s.value) AS lowest, max(s.value) AS highest,
           any_value(s.chance) AS chance
    FROM (SELECT DISTINCT comparison, method, budget, unnest(from_json(evaluations, '["VARCHAR"]')) AS evaluation
          FROM results WHERE task <> 'overall') r
    JOIN slices s USING (evaluation) WHERE s."by" = 'ability' GROUP BY ALL"""

EVAL_VIEWS: Mapping[str, View] = {
    "evaluations": View(
        "One row per checkpoint, task and metric, with its 95 % interval.",
        parquet("artifacts/evaluate/*/evaluation.parquet"),
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
        parquet("artifacts/evaluate/*/eval_items.parquet"),
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
            "repeat": "0, 1, ... of an item that was asked several times",
            "cluster": "items of one cluster (questions about one passage) are drawn together; empty without one",
            "ability": "skill or ability of the item; empty where it is not said, as with those below",
            "level": "what was held out with it: an instance, its task or its whole category",
            "source": "where the item came from",
            "language": "of the item",
            "difficulty": "of the item",
            "prompt_tokens": "tokens of the prompt; 0 where they were not counted",
            "reply_tokens": "tokens of the reply; 0 where they were not counted",
            "choices": "replies to choose from, 0 where the reply is free: chance is 1 / choices",
            "parts": "what the value is a mean over within the item (instructions), else 1",
            "detail": "whatever else the task found, JSON",
        },
        "What does the model get wrong?",
        "SELECT prompt, reply, gold FROM eval_items WHERE metric = 'exact_match' AND value = 0 LIMIT 10",
    ),
    "slices": View(
        "One row per evaluation, metric and part of the test: items of one ability, level, ..., or quarter by length.",
        _SLICES,
        {
            "evaluation": "key of the evaluation",
            "checkpoint": "key of the checkpoint",
            "task": "name of the task",
            "metric": "name of the per-item value",
            "by": "ability, level, difficulty, language, source, prompt length or gold length",
            "slice": "the ability, ... itself; quarter 1 is the shortest",
            "n": "items: below 10 a slice says next to nothing",
            "value": "mean over items, repeats averaged and every item counted alike",
            "low": "lower end of the 95 % interval: Wilson's where items are right or wrong, else 1.96 standard errors",
            "high": "upper end",
            "chance": "what guessing would give; null where replies are free",
        },
        "Which parts of the test does an average hide?",
        """SELECT checkpoint, task, metric, "by", slice, n, value, low, high FROM slices
           WHERE n >= 10 ORDER BY ALL""",
    ),
    "reliability": View(
        "One row per evaluation and bin of confidence, where items are right or wrong: does confidence say how often?",
        _RELIABILITY,
        {
            "evaluation": "key of the evaluation",
            "checkpoint": "key of the checkpoint",
            "task": "name of the task",
            "right_by": "name of the per-item value that says right or wrong",
            "bin": "1 to 10; a bin without items has no row",
            "above": "confidence is above this (the first bin holds 0 too)",
            "at_most": "and at most this",
            "n": "items, repeats averaged: below 10 a bin says next to nothing",
            "confidence": "mean confidence",
            "value": "share right",
            "low": "lower end of its 95 % interval (Wilson), of items drawn one by one",
            "high": "upper end",
        },
        "How often is a model right when it says that it is sure?",
        """SELECT checkpoint, task, above, at_most, n, confidence, value, low, high
           FROM reliability ORDER BY checkpoint, task, bin""",
    ),
    "repeats": View(
        "One row per evaluation and metric whose items were asked several times: how far the outcomes agree.",
        _REPEATS,
        {
            "evaluation": "key of the evaluation",
            "checkpoint": "key of the checkpoint",
            "task": "name of the task",
            "metric": "name of the per-item value",
            "n": "items",
            "repeats": "times each was asked",
            "changed": "share of items whose outcome is not the same every time",
            "spread": "standard deviation of an item's outcome over its repeats, mean over items",
            "deviation": "standard deviation of the score over repeats",
        },
        "How much would asking again change?",
        "SELECT checkpoint, task, metric, n, repeats, changed, spread, deviation FROM repeats ORDER BY changed DESC",
    ),
    "contaminated_items": View(
        "One row per test item that shares an n-gram with a row that may be trained on, and the row that shares most.",
        parquet("artifacts/contamination/*/contaminated.parquet"),
        {
            "contamination": "key of the check",
            "pool": "key of the pool version whose candidates, or of the later stage whose rows, were checked",
            "test": "key of the test set",
            "set": "its name in the run",
            "item": "row of the test set",
            "sample_id": "its hash: `doc_hash` of `eval_items`",
            "words": "words of its user turns",
            "coverage": "largest share of them that lies in 8-grams which one candidate's user turns hold too",
            "row": "that candidate; null where no 8-gram is shared",
            "ngram_row": "first candidate that shares 13 words in a row, whoever speaks; null where none does",
            "contaminated": "whether the coverage is above a half",
        },
        "Which test items does the pool give away?",
        """SELECT c.set, c.item, round(c.coverage, 2) AS coverage, t.messages[1].content AS asked,
                  s.messages[1].content AS in_the_pool
           FROM contaminated_items c JOIN samples s USING (pool, "row")
           JOIN samples t ON t.pool = c.test AND t."row" = c.item WHERE c.contaminated ORDER BY c.coverage DESC""",
    ),
    "results": View(
        "One row per method, budget, task (or mean over tasks) and metric of a race: value, difference to the control.",
        parquet("artifacts/compare/*/results.parquet"),
        {
            "comparison": "key of the comparison",
            "method": "name of the method",
            "budget": "rows",
            "seeds": "seeds, JSON",
            "control": "what differences are to: balanced_random, or the first of the models evaluated",
            "task": "name of the task, or overall: the mean over tasks",
            "metric": "name of the metric",
            "value": "mean over seeds and items",
            "low": "lower end of the 95 % interval",
            "high": "upper end",
            "n": "items",
            "se": "standard error of the mean over items, clustered where they have clusters; null where it is no mean",
            "chance": "what guessing would give; null where replies are free",
            "difference": "method minus control, paired by item and seed",
            "difference_low": "lower end of its 95 % interval",
            "difference_high": "upper end",
            "seed_differences": "the difference of each seed, JSON",
            "mde": "smallest true difference that would have been found in 8 cases of 10",
            "items_needed": "test items that make a difference of 0.03 that likely to be found",
            "p": "two-sided, of no difference",
            "p_from": "mcnemar (exact: one run against one, right or wrong) or bootstrap (the draws of the interval)",
            "p_holm": "p corrected (Holm) for all methods, budgets, tasks; first metrics together, others by name",
            "verdict": "better, worse, or no difference shown, with the detectable effect or what seeds alone allow",
            "value_clean": "value without the test items that are given away; null where none is left",
            "low_clean": "lower end of its 95 % interval",
            "high_clean": "upper end",
            "n_clean": "items that are left",
            "difference_clean": "difference without those items",
            "difference_low_clean": "lower end of its 95 % interval",
            "difference_high_clean": "upper end",
            "contaminated": "items of the test set that candidates or later stages give away: `contaminated_items`",
            "contaminated_chosen": "items that a chosen row gives away, mean over seeds",
            "selections": "keys of the selections, one per seed, JSON",
            "evaluations": "keys of the evaluations, one per seed, JSON",
            "checkpoints": "keys of the checkpoints, one per seed, JSON",
            "seconds": "wall seconds of selecting and training, all seeds",
            "flops": "measuring the pool and training, all seeds",
        },
        "Which method won?",
        "SELECT method, metric, value, difference, difference_low, difference_high, verdict FROM results",
    ),
    "growth": View(
        "One row per method, budget, metric and ability of a race: what an average over abilities hides.",
        _GROWTH,
        {
            "comparison": "key of the comparison",
            "method": "name of the method",
            "budget": "rows; 0 is the base model",
            "task": "name of the task",
            "metric": "name of the per-item value",
            "ability": "skill or ability of the items",
            "n": "items",
            "seeds": "training seeds",
            "value": "mean over seeds and items",
            "lowest": "value of the lowest seed",
            "highest": "value of the highest seed",
            "chance": "what guessing would give; null where replies are free",
        },
        "Which abilities grow with the budget?",
        "SELECT method, task, metric, ability, budget, value, chance FROM growth ORDER BY ALL",
    ),
    "efficiency": View(
        "One row per method and task of a race over several budgets: how few rows are enough.",
        parquet("artifacts/compare/*/efficiency.parquet"),
        {
            "comparison": "key of the comparison",
            "method": "name of the method",
            "task": "name of the task",
            "metric": "its first metric, else its loss",
            "reference": "what the control has at its largest budget",
            "reference_budget": "that budget",
            "budget": "smallest budget whose mean reaches the reference; null where none does",
            "low": "smaller end of its 95 % interval over seeds and items; null is beyond the largest budget",
            "high": "larger end",
            "reached": "share of the draws in which some budget reaches it",
        },
        "How many rows does a method save?",
        "SELECT method, task, budget, low, high, reference_budget FROM efficiency ORDER BY task, budget",
    ),
}
