"""Comparing arms: only paired runs, in the metric's own direction."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from eval.compare import average, compare, overall, overall_average, seed_scores, standard_error
from eval.items import ItemRow, item_table
from eval.metrics import family, leading, main_metric, metrics_of, right_of, set_metrics_of
from warehouse.errors import InputError

N = 200


def row(number: int, value: float, metric: str = "exact_match") -> ItemRow:
    item = f"item {number:03}"
    return ItemRow(
        item, f"group {number % 20}", "q", "r", "r", "g", metric, value, 1 + number % 5, "stop", "p", "d", "t"
    )


def run(values: np.ndarray, metric: str = "exact_match") -> pa.Table:
    return item_table([row(i, float(v), metric) for i, v in enumerate(values)])


def arm(rate: float, seeds: range, metric: str = "exact_match") -> dict[int, pa.Table]:
    return {s: run(np.random.default_rng([s, int(100 * rate)]).random(N) < rate, metric) for s in seeds}


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_real_gain_is_better_and_none_is_not_shown() -> None:
    good, bad = arm(0.6, range(3)), arm(0.3, range(3))
    found = compare(good, bad, "exact_match", rng())
    assert found.verdict == "better"
    assert found.difference.value == pytest.approx(0.3, abs=0.06)
    assert found.difference.value == pytest.approx(np.mean(found.by_seed))
    assert len(found.by_seed) == 3
    assert compare(bad, good, "exact_match", rng()).verdict == "worse"
    assert compare(good, good, "exact_match", rng()).verdict.startswith("no difference shown (no item differs, MDE")


def test_lower_loss_is_better_and_tokens_weigh() -> None:
    low, high = np.linspace(0, 1, N), np.linspace(0, 1, N) + np.where(np.arange(N) % 5 == 4, 1.0, 0.0)
    found = compare({1: run(low, "nll")}, {1: run(high, "nll")}, "nll", rng())
    assert found.difference.value == pytest.approx(-5 / 15)  # the fifth of the items that hold 5 of 15 tokens
    assert found.verdict == "better"
    assert compare({1: run(low, "nll")}, {1: run(high, "nll")}, "nll_item_mean", rng()).difference.value == -0.2


def test_order_of_rows_does_not_matter() -> None:
    good, bad = arm(0.6, range(2)), arm(0.3, range(2))
    shuffled = {s: t.take(np.random.default_rng(s).permutation(N)) for s, t in good.items()}
    assert compare(shuffled, bad, "exact_match", rng()) == compare(good, bad, "exact_match", rng())


def test_one_run_of_right_or_wrong_items_has_an_exact_p() -> None:
    a = run(np.r_[np.ones(22), np.zeros(8), np.ones(170)])
    b = run(np.r_[np.zeros(22), np.ones(8), np.ones(170)])
    found = compare({0: a}, {0: b}, "exact_match", rng())
    assert found.p == pytest.approx(0.01612, abs=5e-6)
    assert found.test == "mcnemar"
    several = compare(arm(0.6, range(2)), arm(0.3, range(2)), "exact_match", rng())
    assert several.test == "bootstrap"
    assert several.p < 0.01


def test_clusters_are_drawn_whole() -> None:
    group_effect = np.random.default_rng(0).normal(size=20)[np.arange(N) % 20]
    a, b = {0: run(group_effect, "nll")}, {0: run(np.zeros(N), "nll")}
    plain = compare(a, b, "nll_item_mean", rng())
    assert compare(a, b, "nll_item_mean", rng(), clusters="group").mde > 2 * plain.mde


def in_clusters(values: np.ndarray, metric: str = "exact_match", size: int = 10) -> pa.Table:
    rows = [replace(row(i, float(v), metric), cluster=f"passage {i // size}") for i, v in enumerate(values)]
    return item_table(rows)


def test_items_of_one_passage_widen_the_interval() -> None:
    values = np.repeat(np.random.default_rng(0).random(N // 10) < 0.5, 10).astype(float)
    alone, together = {0: run(values)}, {0: in_clusters(values)}
    narrow, wide = average(alone, "exact_match", rng()), average(together, "exact_match", rng())
    assert wide.high - wide.low > 2.5 * (narrow.high - narrow.low)
    assert standard_error(together, "exact_match") == pytest.approx(
        standard_error(alone, "exact_match") * np.sqrt(10 * (20 / 19) * (199 / 200)), rel=1e-6
    )
    found = compare(together, {0: in_clusters(np.zeros(N))}, "exact_match", rng())
    assert found.test == "bootstrap"


def test_all_right_is_as_sure_as_its_passages_are_many() -> None:
    found = average({0: in_clusters(np.ones(N))}, "exact_match", rng())
    assert (found.value, found.n) == (1.0, N)
    assert found.low == pytest.approx(0.025 ** (1 / 20))
    assert average({0: run(np.ones(N))}, "exact_match", rng()).low == pytest.approx(0.025 ** (1 / N))


def test_an_empty_cluster_is_none() -> None:
    values = np.random.default_rng(0).random(N)
    rows = [replace(row(i, float(v), "nll"), cluster="") for i, v in enumerate(values)]
    assert average({0: item_table(rows)}, "nll", rng()) == average({0: run(values, "nll")}, "nll", rng())


def repeated(values: np.ndarray) -> pa.Table:
    """(n, r) outcomes as rows, repeat by repeat."""
    r = values.shape[1]
    return item_table([replace(row(i, float(values[i, k])), repeat=k) for k in range(r) for i in range(N)])


def test_repeats_of_an_item_count_once() -> None:
    values = (np.random.default_rng(0).random((N, 5)) < 0.4).astype(float)
    found = average({0: repeated(values)}, "exact_match", rng())
    assert found == average({0: run(values.mean(axis=1))}, "exact_match", rng())
    assert found.n == N
    gain = compare({0: repeated(values)}, {0: run(np.zeros(N))}, "exact_match", rng())
    assert gain.difference.value == pytest.approx(values.mean())


def test_repeats_that_are_none_are_refused() -> None:
    rows = [row(i, 1.0) for i in range(N)]
    with pytest.raises(InputError, match="201 rows of 200 items are not repeats of them"):
        average({0: item_table([*rows, rows[0]])}, "exact_match", rng())
    other = replace(rows[0], repeat=1, prompt_hash="another")
    with pytest.raises(InputError, match="not repeats"):
        average({0: item_table([*rows, other])}, "exact_match", rng())


def test_the_overall_score_averages_tasks_and_not_items() -> None:
    first, second = {0: run(np.ones(N))}, {0: item_table([row(i, 0.0, "numeric_match") for i in range(10)])}
    both = overall_average([first, second], "score", rng())
    assert both is not None
    assert (both.value, both.n) == (0.5, N + 10)
    zero = [{0: run(np.zeros(N))}, second]
    gain = overall([first, second], zero, "score", rng())
    assert gain is not None
    assert gain.difference.value == 0.5


def test_tasks_without_such_a_metric_have_no_mean() -> None:
    accuracy, loss = {0: run(np.ones(N))}, {0: run(np.ones(N), "nll")}
    assert overall_average([accuracy, loss], "score", rng()) is None
    assert overall_average([accuracy, accuracy], "nll", rng()) is None
    assert overall_average([loss, loss], "nll", rng()) is not None


def calibrated(confidence: np.ndarray, right: np.ndarray, sure: np.ndarray) -> pa.Table:
    columns = {"exact_match": right, "confidence": confidence, "p_sure": sure}
    return item_table([row(i, float(v), name) for name, values in columns.items() for i, v in enumerate(values)])


def test_metrics_of_the_whole_set() -> None:
    draw = np.random.default_rng(0)
    confidence = draw.random(N)
    honest = calibrated(confidence, draw.random(N) < confidence, confidence)
    boasting = calibrated(np.full(N, 0.99), honest["value"].to_numpy()[:N], draw.random(N))
    ece, boasted = (average({0: t}, "ece", rng()) for t in (honest, boasting))
    assert ece.value < 0.12 < boasted.value
    assert ece.low <= ece.value <= ece.high
    assert compare({0: honest}, {0: boasting}, "ece", rng()).verdict == "better"
    assert (
        average({0: honest}, "average_precision", rng()).value
        > average({0: boasting}, "average_precision", rng()).value
    )
    assert standard_error({0: honest}, "ece") is None
    with pytest.raises(InputError, match="no mean over items"):
        seed_scores([{0: honest}], "ece")


def test_a_metric_of_the_set_needs_what_says_right() -> None:
    with pytest.raises(InputError, match="no value says so"):
        average({0: run(np.ones(N), "confidence")}, "ece", rng())


def test_pass_at_k_is_a_metric_for_any_k() -> None:
    assert average({0: run(np.full(N, 0.3), "pass@10")}, "pass@10", rng()).value == pytest.approx(0.3)
    with pytest.raises(InputError, match="unknown metric 'pass@0'"):
        average({0: run(np.ones(N), "pass@0")}, "pass@0", rng())


@pytest.mark.parametrize("column", ["item_id", "prompt_hash", "target_hash"])
def test_items_that_are_not_the_same_are_refused(column: str) -> None:
    rows = [row(i, 1.0) for i in range(N)]
    other = [replace(rows[0], **{column: "changed"}), *rows[1:]]
    with pytest.raises(InputError, match="seed 4 of the second arm was not asked the same"):
        compare({4: item_table(rows)}, {4: item_table(other)}, "exact_match", rng())
    with pytest.raises(InputError, match="1 of 200 items differ"):
        compare({4: item_table(rows)}, {4: item_table(rows[1:])}, "exact_match", rng())


def test_what_cannot_be_compared_is_refused() -> None:
    good = arm(0.6, range(3))
    with pytest.raises(InputError, match=r"found seeds \[0, 1, 2\] and \[0, 1\]"):
        compare(good, arm(0.3, range(2)), "exact_match", rng())
    with pytest.raises(InputError, match="unknown metric 'bleu'; known metrics: exact_match"):
        compare(good, good, "bleu", rng())
    with pytest.raises(InputError, match="no item has a value 'nll'; found: exact_match"):
        compare(good, good, "nll", rng())


def test_what_is_looked_at_first_is_what_counts_and_the_loss() -> None:
    assert leading(["p_correct", "nll", "accuracy_norm", "ece", "accuracy", "nll_item_mean"]) == ("accuracy", "nll")
    assert leading(["pass@10", "nll", "pass@2"]) == ("pass@2", "nll")
    assert leading(["nll", "score"]) == ("score", "nll")
    assert leading(["refused", "nll", "undecided"]) == ("refused", "nll")
    assert leading(["nll_item_mean", "nll"]) == ("nll",)
    assert leading(["average_precision", "ece"]) == ("ece",)  # no means over items: neither counts
    assert leading([]) == ()
    with pytest.raises(InputError, match="unknown metric 'made_up'"):
        leading(["nll", "made_up"])


def test_what_tasks_give_to_the_score_is_one_family() -> None:
    columns = ["nll", "accuracy_norm", "accuracy", "p_correct"]
    assert main_metric(columns, "score") == "accuracy"
    assert [family(name, columns) for name in ("accuracy", "accuracy_norm", "nll")] == ["score", "accuracy_norm", "nll"]
    assert family("exact_match", ["exact_match"]) == "score"
    assert main_metric(["nll"], "score") is None
    assert set(metrics_of(["pass@10", "pass@2", "nll"])) == {"nll", "nll_item_mean", "pass@2", "pass@10"}
    assert set(set_metrics_of(["confidence", "accuracy"])) == {"ece"}
    assert set(set_metrics_of(["confidence", "p_sure", "exact_match"])) == {"ece", "average_precision"}
    assert set_metrics_of(["confidence", "refused"]) == {}
    assert right_of(["unsteady", "nll"]) is None
