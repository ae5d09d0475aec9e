"""Synthesis from end to end: what a run asks an endpoint, what it costs, what the next run asks, and the tables."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cli_world import write_rows
from scripted_server import Asked, Body, Says, reply, serving

from flows import recipes
from flows.engine import PlainEngine
from flows.run import Silent
from flows.synth.job import check, synth
from flows.synth.outcome import SynthOutcome
from flows.synth.plan import plan
from flows.workers import HereWorkers
from warehouse.catalogue import query
from warehouse.errors import InputError

QUESTIONS = 12
RECIPE = """\
name: numbers
pool:
  - synthesize: dart
    seeds: [{path: seeds.jsonl, licence: cc-by-4.0}]
    models: {learner: server}
    params: {strategy: vrt, k: 1, verifier: exact}
endpoints:
  server: {base_url: URL, model: m, prices: {input: "1", output: "10"}}
"""


def number_in(body: Body) -> int:
    return int(body["messages"][-1]["content"].split()[-1].rstrip("?"))


def right(body: Body, _: int) -> Says:
    return Says(reply(f"It is {number_in(body)}" if number_in(body) == 3 else str(number_in(body))))


def folder_of(path: Path, server: Asked, recipe: str = RECIPE, questions: int = QUESTIONS) -> Path:
    write_rows(path / "seeds.jsonl", [{"instruction": f"What is {i}?", "output": str(i)} for i in range(questions)])
    (path / "recipe.yaml").write_text(recipe.replace("URL", server.url))
    return path / "recipe.yaml"


def made(path: Path, *overrides: str) -> SynthOutcome:
    recipe = recipes.load(path, overrides)
    check(recipe)
    return synth(recipe, path.parent / "home", "synth", engine=PlainEngine(), workers=HereWorkers(), listener=Silent())


def rows(path: Path, sql: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = query(path.parent / "home", sql).to_pylist()
    return found


def test_a_run_an_unchanged_run_and_a_run_with_one_more_seed(tmp_path: Path) -> None:
    with serving(right) as server:
        path = folder_of(tmp_path, server)
        first = made(path)
        assert [each["accepted"] for each in first.syntheses] == [QUESTIONS - 1]
        assert first.syntheses[0]["refused"] == {"uncovered": 1, "wrong": 1}
        assert (first.kept, first.of, len(server.bodies)) == (QUESTIONS - 1, QUESTIONS - 1, QUESTIONS)
        again = made(path)
        assert (len(server.bodies), [s for s in again.stages if s["computed"]]) == (QUESTIONS, [])
        assert again.syntheses == first.syntheses
        more = made(folder_of(tmp_path, server, questions=QUESTIONS + 1))
        assert len(server.bodies) == QUESTIONS + 1
        assert more.syntheses[0]["accepted"] == QUESTIONS
        made(path, "pool.0.params.temperature=0.5")
        assert len(server.bodies) == 2 * (QUESTIONS + 1)


def test_what_nobody_answered_is_asked_again_and_nothing_else(tmp_path: Path) -> None:
    broken = {2, 5, 7}

    def moody(body: Body, _: int) -> Says:
        return Says({"error": {"message": "no"}}, 400) if number_in(body) in broken else right(body, 0)

    with serving(moody) as server:
        path = folder_of(tmp_path, server)
        first = made(path)
        assert first.syntheses[0]["unanswered"] == 3
        assert "the same command asks for them again" in first.as_text()
        asked, broken = len(server.bodies), {5}
        second = made(path)
        assert len(server.bodies) == asked + 3
        assert (second.syntheses[0]["unanswered"], second.syntheses[0]["accepted"]) == (1, QUESTIONS - 2)
        broken = set()
        third = made(path)
        assert len(server.bodies) == asked + 4
        assert (third.syntheses[0]["unanswered"], third.syntheses[0]["accepted"]) == (0, QUESTIONS - 1)
        assert made(path).syntheses == third.syntheses
        assert len(server.bodies) == asked + 4


def test_the_tables_tell_what_was_asked_and_what_it_cost(tmp_path: Path) -> None:
    with serving(right) as server:
        path = folder_of(tmp_path, server)
        outcome = made(path)
    cost = QUESTIONS * (7 * 1 + 3 * 10) / 1e6
    assert outcome.syntheses[0]["cost_usd"] == pytest.approx(cost)
    [sums] = rows(path, "SELECT count(*) AS n, sum(cost_usd) AS usd FROM attempts WHERE outcome = 'ok'")
    assert (sums["n"], sums["usd"]) == (QUESTIONS, pytest.approx(cost))
    accepted = rows(path, "SELECT g.*, p.text, p.prompt FROM generations g JOIN replies p ON p.reply = g.replies[1]")
    assert len(accepted) == QUESTIONS - 1
    for row in accepted:
        assert f"What is {row['text']}?" in row["prompt"]
        assert (row["licence"], len(row["parents"]), row["models"]) == ("cc-by-4.0", 1, '{"learner":"m"}')
        assert json.loads(row["meta"])["made_by"] == {"synthesizer": "dart", "models": {"learner": "m"}, "seed": 0}
    refused = rows(path, "SELECT reason, messages, replies FROM rejects WHERE source = 'dart' ORDER BY reason")
    assert [row["reason"] for row in refused] == ["uncovered", "wrong"]
    assert "It is 3" in refused[1]["messages"]
    samples = rows(path, "SELECT DISTINCT licence FROM samples WHERE source = 'dart'")
    assert samples == [{"licence": "cc-by-4.0"}]


def test_a_budget_stops_before_it_is_spent_and_a_higher_one_goes_on(tmp_path: Path) -> None:
    with serving(right) as server:
        path = folder_of(tmp_path, server)
        first = made(path, "spend.requests=5")
        assert (len(server.bodies), first.syntheses[0]["unanswered"]) == (5, QUESTIONS - 5)
        assert first.syntheses[0]["refused"]["over_budget"] == QUESTIONS - 5
        second = made(path, "spend.requests=20")
        assert (len(server.bodies), second.syntheses[0]["unanswered"]) == (QUESTIONS, 0)


def test_a_plan_asks_for_a_pilot_whose_replies_are_kept(tmp_path: Path) -> None:
    with serving(right) as server:
        path = folder_of(tmp_path, server, questions=50)
        planned = plan(path, [], tmp_path / "home")
        [found] = planned.plans
        assert (found["seeds"], found["answered"], found["pilot"], len(server.bodies)) == (50, 0, 20, 20)
        assert (found["left"], found["paid"]["requests"], found["forecasts"]["requests"]["value"]) == (30, 20, 30)
        assert found["forecasts"]["USD"]["value"] == pytest.approx(30 * 37 / 1e6)
        assert found["forecasts"]["accepted rows"]["low"] <= 29 <= 30
        assert "the pilot cost 20.0 requests" in planned.as_text()
        assert "USD: 0.00111 [0.00111, 0.00111] (95 % interval from 20 seeds)" in planned.as_text()
        made(path)
        assert len(server.bodies) == 50
        planned = plan(path, [], tmp_path / "home")
        [after] = planned.plans
        assert (after["answered"], after["pilot"], len(server.bodies)) == (50, 0, 50)
        assert "nothing is left to ask" in planned.as_text()


def test_wrong_recipes_are_told_before_anything_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(right) as server:
        path = folder_of(tmp_path, server)
        for override, message in (
            ("pool.0.models={}", r"models in the roles learner; missing: learner"),
            ("pool.0.models.judge=server", r"has no role judge in `models`; known: learner"),
            ("pool.0.seeds=[]", r"'dart' starts from rows: give `seeds`"),
            ("pool.0.models.learner=no-such-model", r"no-such-model"),
            ("endpoints.server.api_key_env=WINNOW_NO_SUCH", r"variable WINNOW_NO_SUCH, which is not set"),
            ("pool.0.models.learner={name: server, template: own}", r"settings under `endpoints`"),
            ("pool.0.models.learner={name: winnow-tiny, tempalte: own}", r"has no parameter tempalte"),
        ):
            with pytest.raises(InputError, match=message):
                check(recipes.load(path, [override]))
        with pytest.raises(InputError, match=r"`spend.usd` is 5 but endpoint 'server' has no prices"):
            check(recipes.load(path, ["endpoints.server.prices=null", "spend.usd=5"]))
        with pytest.raises(InputError, match=r"endpoints.server.base_ulr: unknown key; did you mean 'base_url'"):
            recipes.load(path, ["endpoints.server.base_ulr=x"])
        assert server.bodies == []


def test_a_wrong_key_is_one_line_and_keeps_what_was_answered(tmp_path: Path) -> None:
    def late(body: Body, _: int) -> Says:
        fine = len(server.bodies) <= 4
        return right(body, 0) if fine else Says({"error": {"message": "bad key", "code": "invalid_api_key"}}, 401)

    with serving(late) as server:
        path = folder_of(tmp_path, server, RECIPE.replace("model: m,", "model: m, max_concurrency: 1,"))
        with pytest.raises(InputError, match=r"(?s)server.*401") as caught:
            made(path)
        assert "\n" not in str(caught.value)
        assert rows(path, "SELECT status FROM runs ORDER BY run DESC LIMIT 1") == [{"status": "failed"}]
    with serving(right) as server:
        (tmp_path / "recipe.yaml").write_text(RECIPE.replace("URL", server.url))
        made(path)
        assert len(server.bodies) == QUESTIONS  # another address is another endpoint


KILLED = """\
import sys
from pathlib import Path
from flows import recipes
from flows.engine import PlainEngine
from flows.run import Silent
from flows.synth.job import synth
from flows.workers import HereWorkers
path = Path(sys.argv[1])
synth(recipes.load(path), path.parent / "home", "synth", engine=PlainEngine(), workers=HereWorkers(), listener=Silent())
"""


def test_a_killed_run_asks_for_what_was_in_flight_and_the_rest(tmp_path: Path) -> None:
    def slow(body: Body, number: int) -> Says:
        said = right(body, number)
        return Says(said.body, after=0.05)

    with serving(slow) as server:
        recipe = RECIPE.replace("model: m,", "model: m, max_concurrency: 2,")
        path = folder_of(tmp_path, server, recipe, questions=60)
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], cwd=Path(__file__).parents[2])
        until = time.monotonic() + 300
        while len(server.bodies) < 20 and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert 20 <= len(server.bodies) < 60
        outcome = made(path)
        assert outcome.syntheses[0]["accepted"] == 59
        assert len(server.bodies) <= 60 + 2 * 2


def test_a_row_that_nobody_will_ever_answer_doubles_nothing_and_makes_nothing_anew(tmp_path: Path) -> None:
    def never(body: Body, _: int) -> Says:
        refused = Says({"error": {"message": "maximum context length", "code": "context_length_exceeded"}}, 400)
        return refused if number_in(body) == 5 else right(body, 0)

    with serving(never) as server:
        path = folder_of(tmp_path, server)
        first, second, third = made(path), made(path), made(path)
        assert len(server.bodies) == QUESTIONS + 2
    assert [s["name"] for s in (*second.stages, *third.stages) if s["computed"]] == []
    assert (third.pool, third.selection, third.syntheses) == (first.pool, first.selection, first.syntheses)
    assert rows(path, "SELECT count(*) AS n FROM generations WHERE synthesizer = 'dart'") == [{"n": QUESTIONS - 2}]


def test_views_show_the_last_round_alone(tmp_path: Path) -> None:
    broken = {2, 5}

    def moody(body: Body, _: int) -> Says:
        return Says({"error": {"message": "no"}}, 400) if number_in(body) in broken else right(body, 0)

    with serving(moody) as server:
        path = folder_of(tmp_path, server)
        made(path)
        broken = {3}
        made(path)
    assert rows(path, "SELECT count(*) AS n FROM generations WHERE synthesizer = 'dart'") == [{"n": QUESTIONS - 1}]
    assert rows(path, "SELECT count(*) AS n FROM replies") == [{"n": QUESTIONS}]
    assert rows(path, "SELECT count(*) AS n, count(*) FILTER (cost_usd > 0) AS paid FROM attempts") == [
        {"n": QUESTIONS + 2, "paid": QUESTIONS}
    ]
    assert rows(path, "SELECT reason FROM rejects ORDER BY reason") == [{"reason": "uncovered"}, {"reason": "wrong"}]
    rounds = rows(path, "SELECT accepted, unanswered, continues IS NULL AS first FROM syntheses ORDER BY accepted")
    assert rounds == [
        {"accepted": QUESTIONS - 3, "unanswered": 2, "first": True},
        {"accepted": QUESTIONS - 1, "unanswered": 0, "first": False},
    ]


def test_what_was_paid_for_replies_that_were_cut_is_in_the_bill(tmp_path: Path) -> None:
    def short(body: Body, _: int) -> Says:
        whole = body["max_tokens"] >= 16
        return Says(reply(str(number_in(body)), "stop" if whole else "length", completion=body["max_tokens"]))

    recipe = RECIPE.replace("model: m,", "model: m, length: grow,").replace(
        "verifier: exact", "verifier: exact, max_tokens: 4"
    )
    with serving(short) as server:
        path = folder_of(tmp_path, server, recipe, questions=3)
        outcome = made(path)
        assert [body["max_tokens"] for body in server.bodies].count(16) == 3
        assert outcome.syntheses[0]["requests"] == len(server.bodies) == 9
        assert outcome.syntheses[0]["completion_tokens"] == 3 * (4 + 8 + 16)


def test_a_synthesis_without_rows_leaves_the_others(tmp_path: Path) -> None:
    with serving(right) as server:
        path = folder_of(tmp_path, server)
        more = "  - synthesize: dart\n    seeds: [{path: odd.jsonl}]\n    models: {learner: server}\n"
        more += "    params: {strategy: vrt, k: 1, verifier: exact}\nendpoints:"
        (tmp_path / "recipe.yaml").write_text(path.read_text().replace("endpoints:", more))
        write_rows(tmp_path / "odd.jsonl", [{"instruction": "What is 3?", "output": "3"}])
        outcome = made(path)
        assert [each["accepted"] for each in outcome.syntheses] == [QUESTIONS - 1, 0]
        assert outcome.kept == QUESTIONS - 1
        with pytest.raises(
            InputError, match=r"dart accepted none \(1 wrong, 1 uncovered\)|dart accepted none \(1 uncovered, 1 wrong\)"
        ):
            made(path, "pool.0.seeds=[{path: odd.jsonl}]", "pool.1.params.k=2")


def test_one_budget_is_for_all_and_a_plan_says_what_it_cut(tmp_path: Path) -> None:
    with serving(right) as server:
        path = folder_of(tmp_path, server, questions=30)
        [found] = plan(path, ["spend.requests=8"], tmp_path / "home").plans
        assert (len(server.bodies), found["pilot"], found["cut"]) == (8, 8, 12)
        assert (found["left"], found["forecasts"]["requests"]["value"]) == (22, 22)
        [nothing] = plan(path, ["spend.requests=0", "pool.0.params.temperature=0.5"], tmp_path / "home").plans
        assert (nothing["pilot"], nothing["cut"], nothing["forecasts"]) == (0, 20, {})
        [limited] = plan(path, ["pool.0.params.budget=25"], tmp_path / "home").plans
        assert limited["notes"] == ["the job ends at its own limit, budget 25, whatever is forecast"]


def test_licences_of_all_seeds_travel(tmp_path: Path) -> None:
    with serving(right) as server:
        path = folder_of(tmp_path, server, questions=6)
        write_rows(tmp_path / "same.jsonl", [{"instruction": "What is 1?", "output": "1"}])
        text = path.read_text().replace(
            "licence: cc-by-4.0}]", "licence: cc-by-nc-4.0}, {path: same.jsonl, licence: mit}]"
        )
        path.write_text(text)
        made(path)
    found = rows(path, "SELECT licence, count(*) AS n FROM generations GROUP BY ALL ORDER BY n")
    assert found == [{"licence": "cc-by-nc-4.0 AND mit", "n": 1}, {"licence": "cc-by-nc-4.0", "n": 4}]


def test_a_run_that_ends_stops_its_syntheses(tmp_path: Path) -> None:
    def slow(body: Body, number: int) -> Says:
        if len(server.bodies) == 3:
            (tmp_path / "stop").touch()
        return Says(right(body, number).body, after=0.2)

    with serving(slow) as server:
        recipe = RECIPE.replace("model: m,", "model: m, max_concurrency: 1,")
        path = folder_of(tmp_path, server, recipe, questions=200)
        process = subprocess.Popen(
            [sys.executable, "-c", STOPPED, str(path)], cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True
        )
        _, said = process.communicate(timeout=300)
        assert "Stopped" in said
        assert 3 <= len(server.bodies) < 100


STOPPED = """\
import sys, threading, time
from pathlib import Path
from flows import recipes, run
from flows.engine import PlainEngine
from flows.run import Silent
from flows.synth.job import synth
from flows.workers import HereWorkers
path = Path(sys.argv[1])
begin = run.Run.begin
def stop(made):
    while not (path.parent / "stop").exists():
        time.sleep(0.02)
    made.stopping.set()
def begun(*args, **facts):
    made = begin(*args, **facts)
    threading.Thread(target=stop, args=(made,), daemon=True).start()
    return made
run.Run.begin = begun
synth(recipes.load(path), path.parent / "home", "synth", engine=PlainEngine(), workers=HereWorkers(), listener=Silent())
"""


def test_wrong_values_are_told_with_the_parameter(tmp_path: Path) -> None:
    with serving(right) as server:
        path = folder_of(tmp_path, server)
        for override, message in (
            ("pool.0.params.k=2.5", r"'dart': k is 2.5; give a whole number"),
            ("pool.0.params.k=four", r"'dart': k is 'four'; give a whole number"),
            ("pool.0.params.max_tokens=-5", r"'dart': a prompt needs max_tokens >= 1"),
            ("pool.0.params.verifier=[exact]", r"verifier is \['exact'\]; give a text"),
        ):
            with pytest.raises(InputError, match=message):
                check(recipes.load(path, [override]))
        with pytest.raises(InputError, match=r"'s3ft' needs verifier: give `verifier`"):
            check(recipes.load(path, ["pool.0.synthesize=s3ft", "pool.0.params={}"]))
        twice = path.read_text().split("endpoints:")
        pool = twice[0].split("pool:\n")[1]
        path.write_text(twice[0] + pool + "endpoints:" + twice[1])
        with pytest.raises(InputError, match=r"'dart' is named twice with the same parameters"):
            check(recipes.load(path))


@pytest.mark.parametrize("synthesizer", ["dart", "s3ft", "r_tuning"])
def test_a_judge_that_did_not_answer_decides_nothing(tmp_path: Path, synthesizer: str) -> None:
    healthy = False

    def judging(body: Body, _: int) -> Says:
        if body["max_tokens"] != 8:  # not the judge's question
            return right(body, 0)
        return Says(reply("yes")) if healthy else Says({"error": {"message": "no"}}, 400)

    params = {"dart": "{strategy: vrt, k: 1, ", "s3ft": "{likelihoods: false, ", "r_tuning": "{samples: 0, "}[
        synthesizer
    ]
    recipe = RECIPE.replace("dart", synthesizer).replace("{learner: server}", "{learner: server, judge: server}")
    recipe = recipe.replace("{strategy: vrt, k: 1, verifier: exact}", f"{params}verifier: judge}}")
    with serving(judging) as server:
        path = folder_of(tmp_path, server, recipe, questions=4)
        with pytest.raises(InputError, match="bad_request"):
            made(path)
        healthy = True
        outcome = made(path)
        assert (outcome.syntheses[0]["accepted"], outcome.syntheses[0]["unanswered"]) == (4, 0)
        assert len(server.bodies) == 4 + 4 + 4  # learner's replies are kept, the judge is asked again
    found = rows(path, "SELECT meta->>'sure' AS sure, meta->>'source' AS origin FROM generations")
    assert found == [{"sure": {"r_tuning": "true"}.get(synthesizer), "origin": {"s3ft": "self"}.get(synthesizer)}] * 4
