"""The client against a scripted server: what is sent, what is kept, what becomes of every prompt."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from scripted_server import Asked, Body, Says, Script, ask, echo, reply, serving

from models.converse import converse
from models.dialogue import Complete, Dialogue
from models.endpoint.budget import Budget
from models.endpoint.client import EndpointModel
from models.endpoint.life import Clock
from models.endpoint.outcomes import EndpointDown
from models.endpoint.prices import Prices
from models.endpoint.retries import Retry
from models.endpoint.store import ResponseStore
from models.protocol import Completion, LanguageModel, Prompt, Submits, Want
from warehouse.errors import InputError
from warehouse.records import Message

QUICK = Retry(base=0.001, cap=0.002)
TEXTS = [f"text {number}" for number in range(20)]
PROMPTS = [ask(text) for text in TEXTS]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ResponseStore]:
    with ResponseStore(tmp_path / "responses.sqlite") as opened:
        yield opened


def answers(store: ResponseStore, script: Script, *prompts: Prompt, **given: Any) -> tuple[list[Completion], Asked]:
    """What the client makes of prompts that a server answers by `script`."""
    options = {name: given.pop(name) for name in ("budget", "caching", "retry") if name in given}
    with serving(script) as asked, EndpointModel(asked.spec(**given), store, **{"retry": QUICK, **options}) as model:
        return model.complete(prompts), asked


def rows(store: ResponseStore, columns: str, table: str = "attempts") -> list[tuple[Any, ...]]:
    return store.read(lambda connection: connection.execute(f"SELECT {columns} FROM {table}").fetchall())


def constant(said: Says, body: Body, number: int) -> Says:
    return said


def test_it_answers_to_the_protocols(store: ResponseStore) -> None:
    with serving() as asked, EndpointModel(asked.spec(), store) as model:
        language_model: LanguageModel = model
        assert isinstance(model, Submits)
        assert language_model.fingerprint == EndpointModel(asked.spec(), store).fingerprint
        assert language_model.fingerprint != EndpointModel(asked.spec(revision="2"), store).fingerprint
        with pytest.raises(InputError, match="no log-probabilities of a given text"):
            model.measure([], frozenset({Want.RESPONSE_LOGPROBS}))
        assert asked.bodies == []


def test_replies_come_in_order_and_a_second_run_asks_nothing(store: ResponseStore) -> None:
    first, asked = answers(store, echo, *PROMPTS)
    assert [one.text for one in first] == [text.upper() for text in TEXTS]
    assert {(one.finish_reason, one.failure, one.usage.prompt_tokens) for one in first} == {("stop", "", 7)}
    assert sorted(asked.texts()) == sorted(TEXTS)
    spec = asked.spec()  # nobody listens there any more
    with EndpointModel(spec, store) as model:
        assert model.complete(PROMPTS) == first
        assert (model.progress().cached, model.progress().requests) == (len(PROMPTS), 0)
    assert rows(store, "count(*), count(DISTINCT key)", "responses") == [(20, 20)]


def test_one_more_prompt_is_one_more_call(store: ResponseStore) -> None:
    with serving() as asked, EndpointModel(asked.spec(), store) as model:
        model.complete(PROMPTS[:4])
        model.complete(PROMPTS[:5])
        assert sorted(asked.texts()) == TEXTS[:5]


def test_equal_prompts_under_way_are_one_call(store: ResponseStore) -> None:
    found, asked = answers(store, lambda body, n: Says(reply("x"), after=0.02), *[ask()] * 5)
    assert (len(asked.bodies), len({one.key for one in found}), [one.text for one in found]) == (1, 1, ["x"] * 5)


@pytest.mark.parametrize("said", [Says({"error": {"message": "nope"}}, 400), Says(b"busy", 503), Says(b"", cut=True)])
def test_a_failing_request_affects_only_its_own_row(store: ResponseStore, said: Says) -> None:
    found, asked = answers(
        store, lambda body, n: said if body["messages"][-1]["content"] == "text 3" else echo(body, n), *PROMPTS
    )
    assert [one.text for one in found if not one.failure] == [text.upper() for text in TEXTS if text != "text 3"]
    [lost] = [one for one in found if one.failure]
    assert lost is found[3]
    assert (lost.finish_reason, lost.failure) == ("error", "bad_request" if said.status == 400 else "unreachable")
    assert len(asked.bodies) == 19 + (1 if said.status == 400 else QUICK.tries)


def test_failed_rows_are_offered_again_and_only_they(store: ResponseStore) -> None:
    def once(body: Body, number: int) -> Says:
        bad = body["messages"][-1]["content"] == "text 1" and number == 0
        return Says({"detail": "cannot"}, 422) if bad else echo(body, number)

    with serving(once) as asked:
        with EndpointModel(asked.spec(), store) as model:
            assert [one.failure for one in model.complete(PROMPTS[:3])] == ["", "bad_request", ""]
        with EndpointModel(asked.spec(), store) as model:
            assert [one.failure for one in model.complete(PROMPTS[:3])] == ["", "", ""]
        assert sorted(asked.texts()) == ["text 0", "text 1", "text 1", "text 2"]


TOO_LONG = {
    "error": {"message": "This model's maximum context length is 512 tokens", "code": "context_length_exceeded"}
}
NULL = reply(None)
CASES: list[tuple[str, list[Says], str, str, list[str]]] = [
    ("context", [Says(TOO_LONG, 400)], "too_long", "", ["too_long"]),
    ("throttled", [Says({}, 429, {"Retry-After-ms": "3"}), Says(reply("a"))], "", "a", ["throttle", "ok"]),
    ("burst", [Says({}, 500), Says(b"", 503), Says({}, 529), Says(reply("a"))], "", "a", ["transient"] * 3 + ["ok"]),
    ("html", [Says(b"<html>"), Says(reply("a"))], "", "a", ["foreign", "ok"]),
    ("html twice", [Says(b"<html>")], "unreachable", "", ["foreign"] * 2),
    ("null", [Says(NULL)], "empty", "", ["anomaly"] * 2),
    ("no choice", [Says(reply("a") | {"choices": []}), Says(reply("b"))], "", "b", ["anomaly", "ok"]),
    ("wrong types", [Says({"choices": "x", "usage": 3}), Says(reply("b"))], "", "b", ["anomaly", "ok"]),
    ("cut json", [Says(b'{"choices": [{"mess'), Says(reply("b"))], "", "b", ["anomaly", "ok"]),
    ("filtered", [Says(reply("", "content_filter"))], "filtered", "", ["filtered"]),
    ("error inside", [Says({"error": {"code": 502, "message": "up"}}), Says(reply("b"))], "", "b", ["transient", "ok"]),
    ("cut body", [Says(b'{"choices"', cut=True), Says(reply("b"))], "", "b", ["transient", "ok"]),
]


@pytest.mark.parametrize(
    ("replies", "failure", "text", "outcomes"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_every_request_ends_in_a_stated_outcome(
    store: ResponseStore, replies: list[Says], failure: str, text: str, outcomes: list[str]
) -> None:
    [found], asked = answers(store, lambda body, n: replies[min(n, len(replies) - 1)], ask())
    assert (found.failure, found.text, len(asked.bodies)) == (failure, text, len(outcomes))
    assert rows(store, "number, outcome") == list(enumerate(outcomes, 1))
    assert (found.finish_reason == "error") is bool(failure)


def test_what_is_final_is_kept_and_what_is_not_is_asked_again(store: ResponseStore) -> None:
    page = Says(b"<html>log in</html>")
    for said, sent in ((Says(NULL), 2), (Says(reply("", "content_filter")), 1), (Says(TOO_LONG, 400), 2), (page, 4)):
        with serving(partial(constant, said)) as asked:
            for _ in range(2):
                with EndpointModel(asked.spec(), store, retry=QUICK) as model:
                    [found] = model.complete([ask()])
                    assert found.failure
            assert len(asked.bodies) == sent


def test_an_endpoint_that_answers_with_pages_stops(store: ResponseStore) -> None:
    with (
        serving(partial(constant, Says(b"<html>log in</html>"))) as asked,
        EndpointModel(asked.spec(max_concurrency=1), store, retry=QUICK) as model,
        pytest.raises(
            EndpointDown, match=r"answered by no model, the last with: .*no JSON object: <html>log in</html>"
        ),
    ):
        model.complete(PROMPTS)


LONE = b'{"choices":[{"message":{"content":"a\\ud800b\\u0000"},"finish_reason":"stop"}],"usage":{}}'
TWICE = b'{"choices":[],"choices":[{"message":{"content":"b"},"finish_reason":"stop"}]}'
ODD: list[tuple[str, bytes | Body, str, str]] = [
    ("surrogate", LONE, "a\ufffdb\ufffd", "replaced_characters,usage_estimated"),
    ("twice", TWICE, "b", "duplicate_keys,usage_estimated"),
    ("other", reply("c") | {"model": "gpt-9"}, "c", "other_model"),
    ("dated", reply("d") | {"model": "m-2026-01-01"}, "d", ""),
    ("usage", reply("e") | {"usage": {"prompt_tokens": "7", "completion_tokens": -1}}, "e", "usage_estimated"),
    ("parts", reply([{"type": "text", "text": "f"}, {"type": "text", "text": "g"}], None), "fg", "no_finish_reason"),
]


@pytest.mark.parametrize(("body", "text", "flags"), [case[1:] for case in ODD], ids=[case[0] for case in ODD])
def test_odd_bodies_are_read_and_flagged(store: ResponseStore, body: bytes | Body, text: str, flags: str) -> None:
    [found], _ = answers(store, lambda *_: Says(body), ask())
    assert (found.text, found.failure) == (text, "")
    [(kept, noted)] = rows(store, "body, flags")
    assert (noted, kept) == (flags, body if isinstance(body, bytes) else kept)
    found.text.encode()
    [(tokens,)] = rows(store, "prompt_tokens + completion_tokens")
    assert tokens > 0


def test_a_body_that_never_ends_is_given_up(store: ResponseStore) -> None:
    [found], asked = answers(
        store, lambda *_: Says(b"{", drip=True), ask(), timeout=0.5, retry=Retry(tries=2, base=0.001)
    )
    assert (found.failure, len(asked.bodies)) == ("unreachable", 2)
    assert "no whole reply within 0.5 s" in found.detail


def test_a_body_larger_than_any_reply_is_no_reply(store: ResponseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.endpoint.transport.LARGEST", 1000)
    monkeypatch.setattr("models.endpoint.transport.KEPT_OF_TOO_LARGE", 100)
    [found], asked = answers(store, lambda *_: Says(reply("x" * 5000)), ask())
    assert (found.failure, len(asked.bodies)) == ("empty", 2)


FATAL = [
    (Says({"error": {"message": "Incorrect API key provided: s3cret"}}, 401), "Incorrect API key.*check the key"),
    (Says({"error": {"message": "no"}}, 403), "may not use this model"),
    (Says({"error": {"message": "The model `m` does not exist"}}, 404), "does not exist.*check `model` and `base_url`"),
    (Says({"error": {"message": "quota", "code": "insufficient_quota"}}, 429), "raise it"),
    (Says(b"", 307, {"Location": "http://elsewhere/v1"}), "redirects to http://elsewhere/v1"),
]


@pytest.mark.parametrize(("said", "message"), FATAL, ids=["key", "rights", "model", "quota", "moved"])
def test_a_fatal_answer_ends_all_that_waits_with_one_line(
    store: ResponseStore, said: Says, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "s3cret")
    with serving(lambda body, n: echo(body, n) if body["messages"][-1]["content"] == "text 0" else said) as asked:
        spec = asked.spec(max_concurrency=2, api_key_env="SOME_KEY")
        with EndpointModel(spec, store, retry=QUICK) as model:
            assert model.complete(PROMPTS[:1])[0].text == "TEXT 0"
            futures = [model.submit(prompt) for prompt in PROMPTS[1:]]
            wait(futures, 60)
            errors = {str(future.exception()) for future in futures}
            assert len(errors) == 1
            with pytest.raises(EndpointDown, match=message) as caught:
                model.submit(ask("later")).result(60)
            assert "\n" not in str(caught.value)
            assert asked.url in str(caught.value)
            assert "s3cret" not in str(caught.value)
            assert model.complete(PROMPTS[:1])[0].text == "TEXT 0"  # what was answered is still there
        assert len(asked.bodies) <= 4
        assert set(asked.keys) == {"Bearer s3cret"}
    assert b"s3cret" not in store.path.read_bytes() + store.path.with_name("responses.sqlite-wal").read_bytes()


def test_an_endpoint_that_is_not_there_says_so(store: ResponseStore) -> None:
    with serving() as asked:
        spec = asked.spec()
    with (
        EndpointModel(spec, store, retry=QUICK) as model,
        pytest.raises(EndpointDown, match="start the server, or mend"),
    ):
        model.complete(PROMPTS)
    keyed = spec.model_copy(update={"api_key_env": "NOT_SET"})
    with EndpointModel(keyed, store) as model, pytest.raises(EndpointDown, match="set NOT_SET"):
        model.complete(PROMPTS)


def test_many_refusals_among_the_first_rows_stop_the_run(store: ResponseStore) -> None:
    with serving(lambda *_: Says({"error": {"message": "unknown field top_q"}}, 400)) as asked:
        with EndpointModel(asked.spec(max_concurrency=1), store) as model:
            with pytest.raises(EndpointDown, match=r"11 of the first 11 .*unknown field top_q"):
                model.complete([ask(f"{i}") for i in range(40)])
            assert len(asked.bodies) < 20
        with EndpointModel(asked.spec(), store) as model:
            assert {one.failure for one in model.complete(PROMPTS[:10])} == {"bad_request"}


def test_replies_that_were_cut_follow_the_policy(store: ResponseStore) -> None:
    def needs(tokens: int) -> Script:
        return lambda body, n: Says(reply("done") if body["max_tokens"] >= tokens else reply("do", "length"))

    prompt = ask(max_tokens=10)
    [accepted], asked = answers(store, needs(40), prompt)
    assert (accepted.text, accepted.finish_reason, len(asked.bodies)) == ("do", "length", 1)
    [grown], asked = answers(store, needs(40), prompt, length="grow", length_cap=64)
    assert (grown.text, [body["max_tokens"] for body in asked.bodies]) == ("done", [10, 20, 40])
    [capped], asked = answers(store, needs(100), prompt, length="grow", length_cap=30)
    assert (capped.text, capped.finish_reason) == ("do", "length")
    assert [body["max_tokens"] for body in asked.bodies] == [10, 20, 30]
    [dropped], asked = answers(store, needs(40), prompt, length="drop")
    assert (dropped.text, dropped.failure, len(asked.bodies)) == ("", "empty", 1)


def test_caching_only_asks_nothing_and_refresh_asks_all_once(store: ResponseStore) -> None:
    with serving(lambda body, n: Says(reply(f"reply {n}"))) as asked:
        with EndpointModel(asked.spec(), store) as model:
            model.complete([ask("known")])
        with EndpointModel(asked.spec(), store, caching="only") as model:
            known, unknown = model.complete([ask("known"), ask("unknown")])
            assert (known.text, unknown.failure) == ("reply 0", "unreachable")
            assert "not in the response store" in unknown.detail
        with EndpointModel(asked.spec(), store, caching="refresh") as model:
            assert [model.complete([ask("known")])[0].text for _ in range(2)] == ["reply 1"] * 2
        assert asked.texts() == ["known", "known"]
    assert rows(store, "count(*)") == [(2,)]  # what was paid before is still there
    with pytest.raises(InputError, match="known: use, only, refresh"):
        EndpointModel(asked.spec(), store, caching="never")  # type: ignore[arg-type]


PRICES = Prices(input="1", output="2")  # type: ignore[arg-type]  # as TOML gives them


def test_every_try_that_has_usage_is_charged(store: ResponseStore) -> None:
    def script(body: Body, number: int) -> Says:
        return Says(reply(None if number == 0 else "x", prompt=100, completion=10))

    with serving(script) as asked, EndpointModel(asked.spec(prices=PRICES), store, retry=QUICK) as model:
        model.complete([ask()])
        assert str(model.progress().cost) == "0.00024"
    assert (str(store.totals().cost), store.totals().prompt_tokens) == ("0.00024", 200)


def test_a_budget_ends_rows_without_an_error(store: ResponseStore) -> None:
    budget = Budget(requests=5)
    found, asked = answers(store, echo, *PROMPTS, budget=budget)
    assert len(asked.bodies) == 5
    assert sorted(one.failure for one in found) == [""] * 5 + ["over_budget"] * 15
    assert budget.spent().requests == 5
    found, asked = answers(store, echo, *PROMPTS, budget=Budget(requests=0), namespace="same")
    assert (asked.bodies, {one.failure for one in found}) == ([], {"over_budget"})


def test_what_is_reserved_comes_back(store: ResponseStore) -> None:
    """Reservations of 64 replies exceed the budget, what they use does not: all are asked."""
    budget = Budget(usd="0.01", tokens=5000)  # type: ignore[arg-type]
    found, _ = answers(store, lambda *_: Says(reply("x"), after=0.002), *PROMPTS, budget=budget, prices=PRICES)
    assert {one.failure for one in found} == {""}
    assert (budget.spent().tokens, budget.reserved().tokens) == (200, 0)


def test_a_budget_in_usd_needs_prices(store: ResponseStore) -> None:
    with serving() as asked, pytest.raises(InputError, match=r"no prices.*\[scripted.prices\]"):
        EndpointModel(asked.spec(), store, Budget(usd="1"))  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [1, 3])
def test_concurrency_is_bounded_and_changes_no_reply(store: ResponseStore, limit: int) -> None:
    found, asked = answers(store, lambda b, n: Says(echo(b, n).body, after=0.1), *PROMPTS[:9], max_concurrency=limit)
    assert asked.most == limit
    assert [one.text for one in found] == [text.upper() for text in TEXTS[:9]]


def test_futures_that_are_cancelled_in_time_are_not_asked(store: ResponseStore) -> None:
    release = threading.Event()

    def held(body: Body, number: int) -> Says:
        release.wait(60)
        return echo(body, number)

    with serving(held) as asked, EndpointModel(asked.spec(max_concurrency=1), store) as model:
        futures = [model.submit(prompt) for prompt in PROMPTS]
        _until(lambda: bool(asked.bodies))
        for future in futures[1:]:
            future.cancel()
        release.set()
        assert futures[0].result(60).text == "TEXT 0"
    assert asked.texts() == ["text 0"]


def test_closing_waits_for_what_has_left_and_keeps_it(store: ResponseStore) -> None:
    with serving(lambda body, n: Says(echo(body, n).body, after=1.0)) as asked:
        model = EndpointModel(asked.spec(max_concurrency=2), store)
        futures = [model.submit(prompt) for prompt in PROMPTS]
        _until(lambda: len(asked.bodies) == 2)
        model.close()
        assert [future.result(0).text for future in futures[:2]] == ["TEXT 0", "TEXT 1"]
        for future in futures[2:]:
            with pytest.raises(CancelledError):
                future.result(0)
        with pytest.raises(RuntimeError, match="closed"):
            model.submit(ask())
        assert len(asked.bodies) == model.progress().requests == 2
    assert rows(store, "count(*)", "leases") == [(0,)]
    assert rows(store, "count(*)", "responses") == [(2,)]


def test_closing_does_not_wait_for_ever(store: ResponseStore) -> None:
    with serving(lambda *_: Says(b"{", drip=True)) as asked:
        model = EndpointModel(asked.spec(), store)
        future = model.submit(ask())
        _until(lambda: bool(asked.bodies))
        model.close(drain_seconds=0.02)
        assert future.cancelled()
    assert rows(store, "count(*)", "leases") == [(0,)]


def test_two_models_on_one_store_buy_nothing_twice(store: ResponseStore) -> None:
    with serving(lambda body, n: Says(echo(body, n).body, after=0.03)) as asked:
        with EndpointModel(asked.spec(), store) as one, EndpointModel(asked.spec(), store) as other:
            futures = [model.submit(prompt) for prompt in PROMPTS for model in (one, other)]
            assert [future.result(60).text for future in futures] == [t.upper() for t in TEXTS for _ in range(2)]
        assert sorted(asked.texts()) == sorted(TEXTS)


def test_a_reply_that_came_but_was_not_read_is_read_later(
    store: ResponseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("a bug")

    with serving() as asked:
        monkeypatch.setattr("models.endpoint.sender.classify", broken)
        with EndpointModel(asked.spec(), store) as model, pytest.raises(KeyError):
            model.complete([ask()])
        assert store.totals().unread == 1
        monkeypatch.undo()
        with EndpointModel(asked.spec(), store) as model:
            assert model.complete([ask()])[0].text == "HELLO"
        assert (len(asked.bodies), store.totals().unread, store.totals().prompt_tokens) == (1, 0, 7)


def test_another_parser_reads_all_again_and_asks_nothing(store: ResponseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as asked:
        with EndpointModel(asked.spec(), store) as model:
            first = model.complete(PROMPTS)
        monkeypatch.setattr("models.endpoint.asker.VERSION", 2)
        monkeypatch.setattr("models.endpoint.sender.VERSION", 2)
        with EndpointModel(asked.spec(), store) as model:
            assert model.complete(PROMPTS) == first
        assert len(asked.bodies) == len(PROMPTS)
    assert rows(store, "DISTINCT version", "parsed") == [(2,)]


def test_long_waits_give_up_when_the_time_is_up(store: ResponseStore) -> None:
    [found], asked = answers(store, lambda *_: Says(b"", 429, {"Retry-After": "3600"}), ask())
    assert (found.failure, len(asked.bodies)) == ("unreachable", 1)


def test_waits_are_those_the_server_asks_for(store: ResponseStore) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    def busy(body: Body, number: int) -> Says:
        return Says(b"", 429, {"Retry-After": "7"}) if number < 3 else echo(body, number)

    with serving(busy) as asked, EndpointModel(asked.spec(), store, clock=Clock(sleep=sleep)) as model:
        assert model.complete([ask()])[0].text == "HELLO"
        assert model.progress().limit < 16
    assert len(slept) == 3
    assert all(7 <= seconds < 7.5 for seconds in slept)


def test_requests_a_minute_are_kept(store: ResponseStore) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    clock = Clock(monotonic=lambda: 0.0, sleep=sleep)
    with serving() as asked:
        spec = asked.spec(requests_per_minute=60, max_concurrency=1)
        with EndpointModel(spec, store, clock=clock) as model:
            model.complete(PROMPTS[:5])
    assert slept == pytest.approx([1, 2, 3, 4])


def test_tokens_a_minute_are_estimated_and_corrected(store: ResponseStore) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    clock = Clock(monotonic=lambda: 0.0, sleep=sleep)
    with serving() as asked:
        spec = asked.spec(tokens_per_minute=600, max_concurrency=1)
        with EndpointModel(spec, store, clock=clock) as model:
            for prompt in PROMPTS[:3]:
                model.complete([prompt])
    # ten tokens a second: the first waits for nothing, the others for the ten real ones before, not for max_tokens
    assert slept == pytest.approx([1, 2])


def test_prompts_come_from_many_threads(store: ResponseStore) -> None:
    with serving() as asked, EndpointModel(asked.spec(), store) as model, ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda number: model.complete([PROMPTS[number % 20]])[0].text, range(80)))
        assert found == [TEXTS[number % 20].upper() for number in range(80)]
        assert sorted(asked.texts()) == sorted(TEXTS)


def test_dialogues_end_one_by_one(store: ResponseStore) -> None:
    def one(number: int) -> Dialogue[str]:
        [first] = yield [Complete("generator", ask(f"first {number}"))]
        [second] = yield [Complete("generator", ask(f"then {first.text}"))]
        return str(second.text)

    with serving() as asked, EndpointModel(asked.spec(), store) as model:
        found = converse(map(one, range(30)), {"generator": model})
    assert found == [f"THEN FIRST {number}" for number in range(30)]


def test_a_store_that_cannot_be_written_stops_and_says_so(store: ResponseStore) -> None:
    with serving() as asked:
        with EndpointModel(asked.spec(), store) as model:
            model.complete([ask("known")])
        with ResponseStore(store.path, read_only=True) as reading, EndpointModel(asked.spec(), reading) as model:
            assert model.complete([ask("known")])[0].text == "KNOWN"
            with pytest.raises(InputError, match="read-only"):
                model.complete([ask("unknown")])
        assert asked.texts() == ["known"]


def test_a_system_prompt_and_every_parameter_are_sent(store: ResponseStore) -> None:
    prompt = Prompt((Message("system", "Be terse."), Message("user", "hi")), 5, 0.7, 0.9, ("\n",), 3, 0, 1.5)
    _, asked = answers(store, echo, prompt, extra_body={"top_k": 4}, logprobs=True)
    assert asked.bodies == [
        {
            "model": "m",
            "messages": [{"role": "system", "content": "Be terse."}, {"role": "user", "content": "hi"}],
            "temperature": 0.7,
            "max_tokens": 5,
            "seed": 3,
            "top_p": 0.9,
            "stop": ["\n"],
            "presence_penalty": 1.5,
            "logprobs": True,
            "top_k": 4,
        }
    ]


def _until(true: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(12000):
        if true():
            return
        waiting.wait(0.005)
    raise AssertionError("it never came true")
