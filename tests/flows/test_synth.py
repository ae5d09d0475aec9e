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
        assert found["forecasts"]["requests"]["value"] == 50
        assert found["forecasts"]["USD"]["value"] == pytest.approx(50 * 37 / 1e6)
        assert found["forecasts"]["accepted rows"]["low"] <= 49 <= 50
        assert "95 % interval from 20 seeds" in planned.as_text()
        made(path)
        assert len(server.bodies) == 50
        [after] = plan(path, [], tmp_path / "home").plans
        assert (after["answered"], after["pilot"], len(server.bodies)) == (50, 0, 50)


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
        until = time.monotonic() + 60
        while len(server.bodies) < 20 and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert 20 <= len(server.bodies) < 60
        outcome = made(path)
        assert outcome.syntheses[0]["accepted"] == 59
        assert len(server.bodies) <= 60 + 2 * 2
