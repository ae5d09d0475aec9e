"""The parts of the client by themselves: keys, classes, waits, prices, budgets, rates."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import fields, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_server import ask, reply

from models.endpoint.budget import Amount, Budget
from models.endpoint.outcomes import Kind, classify
from models.endpoint.prices import Prices, Tokens
from models.endpoint.rates import WINDOW, Bucket, Gate
from models.endpoint.reply import read_reply
from models.endpoint.retries import Retry, stated_wait
from models.endpoint.spec import EndpointSpec, load_endpoints, normalised
from models.endpoint.wire import wire_request, wire_seed
from models.protocol import Prompt
from warehouse.errors import InputError
from warehouse.records import Message, canonical

SPEC = EndpointSpec(name="a", base_url="http://host/v1", model="m")
SCHEMA = canonical(
    {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
)
KNOWN = Prompt((Message("system", "s"), Message("user", "u")), 256, 1.0, 0.5, ("x",), 1, 0, 0.5, SCHEMA)

# ---- keys

OTHER: dict[str, Any] = {
    "messages": (Message("system", "t"), Message("user", "u")),
    "max_tokens": 255,
    "temperature": 0.5,
    "top_p": 0.75,
    "stop": ("y",),
    "seed": 2,
    "draw": 1,
    "presence_penalty": 0.25,
    "schema": canonical({"type": "array"}),
}


def key(spec: EndpointSpec = SPEC, prompt: Prompt = KNOWN, mode: Any = "json_schema") -> str:
    return wire_request(spec, prompt, mode, spec.logprobs).key


def test_every_field_of_a_prompt_makes_another_key() -> None:
    assert set(OTHER) == {field.name for field in fields(Prompt)}
    keys = [key(), *(key(prompt=replace(KNOWN, **{name: value})) for name, value in OTHER.items())]
    keys += [key(mode="json_object"), key(mode="prompt")]
    assert len(set(keys)) == len(keys)


def test_what_may_change_an_answer_is_in_the_key_and_nothing_else() -> None:
    changed = {
        "base_url": "http://host/v2",
        "model": "n",
        "revision": "2",
        "namespace": "here",
        "logprobs": True,
        "extra_body": {"top_k": 1},
        "token_limit_field": "max_completion_tokens",
    }
    keys = [key(), *(key(EndpointSpec(**{**SPEC.model_dump(), name: value})) for name, value in changed.items())]
    assert len(set(keys)) == len(keys)
    same = {
        "name": "b",
        "api_key_env": "KEY",
        "max_concurrency": 3,
        "min_concurrency": 2,
        "requests_per_minute": 1,
        "tokens_per_minute": 1,
        "timeout": 1.0,
        "prices": Prices(Decimal(1), Decimal(1)),
        "length": "grow",
        "length_cap": 9,
        "structured": "prompt",
    }
    assert {key(EndpointSpec(**{**SPEC.model_dump(), name: value})) for name, value in same.items()} == {key()}
    assert set(changed) | set(same) == set(EndpointSpec.model_fields)


PROMPTS = st.builds(
    Prompt,
    st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), st.text()), min_size=1, max_size=3).map(tuple),
    st.integers(1, 3),
    st.sampled_from([0, 0.0, 1, 1.0]),
    st.sampled_from([1, 1.0, 0.5]),
    st.lists(st.text(min_size=1, max_size=2), max_size=2).map(tuple),
    st.integers(-3, 3) | st.integers(2**31 - 1, 2**70),
    st.integers(0, 2),
)


@given(PROMPTS, PROMPTS)
def test_keys_are_equal_where_prompts_are(one: Prompt, other: Prompt) -> None:
    assert (key(prompt=one) == key(prompt=other)) == (one == other)
    assert key(prompt=one) == key(prompt=replace(one))
    assert wire_request(SPEC, one).payload.isascii()


@given(st.integers(), st.integers(0, 5))
def test_seeds_fit_every_server_and_differ_by_draw(seed: int, draw: int) -> None:
    assert 0 <= wire_seed(seed, draw) < 2**31
    assert wire_seed(seed, draw) != wire_seed(seed, draw + 1)


def test_the_seed_of_the_first_draw_is_the_prompts_own() -> None:
    assert [wire_seed(seed, 0) for seed in (0, 7, 2**31 - 1)] == [0, 7, 2**31 - 1]


def test_schemas_are_strict_only_where_servers_take_them_so() -> None:
    def strict(schema: dict[str, Any]) -> Any:
        sent = wire_request(SPEC, ask(schema=canonical(schema)), "json_schema").body["response_format"]
        return sent["json_schema"]["strict"]

    closed = json.loads(SCHEMA)
    assert strict(closed)
    assert not strict(closed | {"required": []})
    assert not strict(closed | {"$defs": {"inner": {"type": "object"}}})
    assert wire_request(SPEC, ask(schema=SCHEMA), "prompt").body.get("response_format") is None


def test_the_worst_case_of_a_prompt_is_no_less_than_its_bytes() -> None:
    request = wire_request(SPEC, ask("🎉" * 10))
    assert request.most_prompt_tokens >= 40 >= request.likely_prompt_tokens > 0


def test_a_null_removes_a_field() -> None:
    spec = EndpointSpec(**{**SPEC.model_dump(), "extra_body": {"seed": None}})
    one, other = (wire_request(spec, ask(seed=seed)) for seed in (1, 2))
    assert "seed" not in one.body
    assert one.key != other.key  # they are two draws all the same


# ---- what a user writes


def test_addresses_have_one_spelling() -> None:
    spelled = {normalised(url) for url in ("http://Host:80/v1/", "HTTP://host//v1", "http://host/v1/chat/completions")}
    assert spelled == {"http://host/v1"}
    assert normalised("https://[::1]:8443/v1") == "https://[::1]:8443/v1"
    for wrong in ("host/v1", "ftp://host", "http://me:secret@host/v1", "http://host/v1?key=secret"):
        with pytest.raises(ValueError, match="address"):
            normalised(wrong)


FILE = """
[local]
base_url = "http://127.0.0.1:8000/v1"
model = "tiny"
timeout = 1.5
[paid]
base_url = "https://api.example.org/v1"
model = "big"
api_key_env = "EXAMPLE_KEY"
extra_body = { top_k = 3, min_p = 0.1 }
[paid.prices]
input = 0.15
output = 0.60
cached_input = 0.075
"""


def test_endpoints_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.toml"
    path.write_text(FILE)
    found = load_endpoints(path)
    assert list(found) == ["local", "paid"]
    assert (found["local"].timeout, found["local"].prices) == (1.5, None)
    assert found["paid"].prices == Prices(Decimal("0.15"), Decimal("0.60"), Decimal("0.075"))
    assert found["paid"].extra_body == {"top_k": 3, "min_p": 0.1}


WRONG = {
    "base_url": ('base_url = "x"', "give an address"),
    "key": ('api_key_env = "sk-123"', "not the key itself"),
    "unknown": ("concurrency = 3", "concurrency"),
    "limits": ("max_concurrency = 1\nmin_concurrency = 2", "min_concurrency 2 is above"),
    "ours": ("extra_body = { n = 2 }", "n cannot be set here"),
    "price": ("prices = { input = -1, output = 0 }", "price input is Decimal|price input is -1"),
    "toml": ("timeout = ", "cannot be read"),
}


@pytest.mark.parametrize(("line", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "endpoints.toml"
    base = "" if "base_url" in line else 'base_url = "http://host/v1"\n'
    path.write_text(f'[e]\nmodel = "m"\n{base}{line}\n')
    with pytest.raises(InputError, match=message) as caught:
        load_endpoints(path)
    assert str(path) in str(caught.value)


def test_prices_are_exact() -> None:
    prices = Prices(*map(Decimal, ("0.15", "0.60", "0.075", "1.20", "0.5")))
    # (60 · 0.15 + 40 · 0.075 + 20 · 0.60 + 30 · 1.20) · 0.5 / 10⁶
    assert prices.cost(Tokens(100, 50, 40, 30)) == Decimal("0.000030")
    plain = Prices(0.1, 0.2)  # type: ignore[arg-type]  # what YAML and JSON give
    assert plain.cost(Tokens(3, 0)) == Decimal("0.0000003")
    mapped = EndpointSpec(**{**SPEC.model_dump(), "prices": {"input": 0.1, "output": "0.2"}})
    assert mapped.prices == plain
    assert prices.most(100, 50) >= prices.cost(Tokens(100, 50, 40, 30))
    for wrong in ("x", -1, float("nan"), True):
        with pytest.raises(InputError, match="price output"):
            Prices(Decimal(1), wrong)  # type: ignore[arg-type]


# ---- classes and waits

JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "message", "content", "usage", "error", "code", "finish_reason", "model", "logprobs"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
BODIES = st.binary(max_size=60) | JSONS.map(lambda value: json.dumps(value).encode())
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset-tokens", "x-ratelimit-reset", "location"]),
    st.text(max_size=12) | st.sampled_from(["1m30s", "Wed, 21 Oct 2026 07:28:00 GMT", "1e400", "9" * 400]),
)


@settings(max_examples=400)
@given(st.none() | st.integers(100, 599), HEADERS, BODIES, st.text(max_size=5))
def test_every_try_has_one_class(status: int | None, headers: dict[str, str], body: bytes, error: str) -> None:
    outcome = classify(status, headers, body, error, 1.8e9)
    assert outcome.kind in get_args(Kind)
    assert outcome.wait is None or outcome.wait >= 0
    if outcome.kind == "ok":
        assert outcome.reply is not None
        assert outcome.reply.text.strip()
        assert status is not None
        assert status < 300
        outcome.reply.text.encode()


CLASSES = {
    408: "transient", 409: "transient", 500: "transient", 502: "transient", 503: "transient", 504: "transient",
    529: "transient", 429: "throttle", 401: "fatal", 402: "fatal", 403: "fatal", 404: "fatal", 405: "fatal",
    301: "fatal", 400: "bad_request", 422: "bad_request", 413: "too_long",
}  # fmt: skip


@pytest.mark.parametrize(("status", "kind"), CLASSES.items())
def test_statuses_have_their_classes(status: int, kind: str) -> None:
    assert classify(status, {}, b'{"error": {"message": "why"}}').kind == kind


LONG = [
    "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens",
    "the request exceeds the available context size. try increasing the context size",
    "prompt is too long: 210000 tokens > 200000 maximum",
    "Input is too long for requested model.",
    "The decoder prompt (length 600) is longer than the maximum model length of 512. Make sure max_model_len",
]


@pytest.mark.parametrize("said", LONG)
def test_servers_say_in_many_ways_that_a_prompt_is_too_long(said: str) -> None:
    for body in ({"error": {"message": said}}, {"error": said}, {"message": said}, {"detail": said}):
        assert classify(400, {}, json.dumps(body).encode()).kind == "too_long"
    assert classify(400, {}, b'{"error": {"message": "temperature is too high"}}').kind == "bad_request"


def test_a_filter_that_refuses_the_prompt_is_a_filter() -> None:
    body = {
        "error": {"message": "policy", "code": "content_filter", "innererror": {"code": "ResponsibleAIPolicyViolation"}}
    }
    assert classify(400, {}, json.dumps(body).encode()).kind == "filtered"
    refused = reply(None) | {"choices": [{"message": {"content": None, "refusal": "no"}, "finish_reason": "stop"}]}
    outcome = classify(200, {}, json.dumps(refused).encode())
    assert (outcome.kind, outcome.detail) == ("filtered", "no")


def test_logprobs_are_whole_or_absent() -> None:
    def read(content: Any) -> tuple[float, ...]:
        body = reply("a b")
        body["choices"][0]["logprobs"] = {"content": content}
        return read_reply(json.dumps(body).encode()).logprobs

    assert read([{"token": "a", "logprob": -0.5}, {"token": " b", "logprob": -1}]) == (-0.5, -1.0)
    assert read([{"token": "a", "logprob": -0.5}, {"token": " b"}]) == ()
    assert read([{"token": "a", "logprob": float("-inf")}]) == ()
    assert read("ab") == read(None) == ()


NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT
WAITS: list[tuple[dict[str, str], float | None]] = [
    ({}, None),
    ({"retry-after": "3"}, 3),
    ({"retry-after": "1.5", "retry-after-ms": "250"}, 0.25),
    ({"retry-after": "Fri, 15 Jan 2027 08:00:20 GMT"}, 20),
    ({"retry-after": "Fri, 15 Jan 2027 07:00:00 GMT"}, 0),
    ({"retry-after": "soon"}, None),
    ({"x-ratelimit-reset-requests": "1m30s"}, 90),
    ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-reset-tokens": "17ms"}, 0.017),
    ({"x-ratelimit-reset-requests": "2s", "x-ratelimit-reset-tokens": "40s", "x-ratelimit-remaining-tokens": "0"}, 40),
    ({"x-ratelimit-reset": "1800000005"}, 5),
    ({"x-ratelimit-reset": "1800000005000"}, 5),
    ({"x-ratelimit-reset-tokens": "2027-01-15T08:00:07Z"}, 7),
]


@pytest.mark.parametrize(("headers", "seconds"), WAITS)
def test_servers_say_in_many_ways_how_long_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    found = stated_wait(headers, NOW)
    assert found == (None if seconds is None else pytest.approx(seconds))


@given(st.integers(1, 2000), st.floats(0, 1, exclude_max=True))
def test_waits_are_uniform_below_a_doubling_cap(failed: int, jitter: float) -> None:
    assert Retry().wait(failed, jitter) == pytest.approx(jitter * min(60, 0.5 * 2.0 ** min(failed - 1, 100)))
    assert 9 <= Retry().wait(failed, jitter, 9) <= 9.5


# ---- budgets and rates

AMOUNTS = st.builds(Amount, st.decimals(0, 5, places=2), st.integers(0, 5), st.just(1))


@given(st.lists(st.tuples(AMOUNTS, st.booleans()), max_size=40), st.integers(0, 20))
def test_a_budget_is_never_exceeded_by_more_than_its_reservations(steps: list[tuple[Amount, bool]], limit: int) -> None:
    budget = Budget(Decimal(limit), limit, limit)
    open_: list[Amount] = []
    for most, settles in steps:
        grant = budget.reserve(most)
        if grant == "granted":
            open_.append(most)
        else:
            assert (grant == "wait") is bool(open_ and _fits(budget.spent() + most, limit))
        assert _fits(budget.spent() + budget.reserved(), limit)
        if settles and open_:
            taken = open_.pop(0)
            budget.settle(taken, taken)
    for taken in open_:
        budget.settle(taken, Amount(requests=1))
    assert budget.reserved() == Amount()
    assert _fits(budget.spent(), limit)


def _fits(total: Amount, limit: int) -> bool:
    return total.usd <= limit and total.tokens <= limit and total.requests <= limit


def test_time_is_a_budget_too() -> None:
    now = [0.0]
    budget = Budget(seconds=10, clock=lambda: now[0])
    now[0] = 100.0
    assert budget.reserve(Amount()) == "granted"  # it counts from here
    now[0] = 109.9
    assert budget.reserve(Amount()) == "granted"
    now[0] = 110.0
    assert budget.reserve(Amount()) == "never"
    for wrong in (-1, float("nan")):
        with pytest.raises(InputError, match="budget seconds"):
            Budget(seconds=wrong)


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 200)), min_size=1, max_size=60), st.integers(1, 600))
def test_no_minute_sees_more_than_its_rate(steps: list[tuple[float, int]], rate: int) -> None:
    """What is used in any minute is at most the rate, a second's worth, and the last thing taken."""
    now = [0.0]
    bucket = Bucket(rate, lambda: now[0])
    used: list[tuple[float, int]] = []
    at = 0.0
    for pause, units in steps:
        at = max(at, now[0] + pause)
        now[0] = at
        at += bucket.take(units)
        used.append((at, units))
    for start, _ in used:
        inside = [units for moment, units in used if start <= moment < start + 60]
        assert sum(inside[:-1]) <= rate + max(1, rate / 60) + 1e-6 + max(inside)


def test_a_bucket_takes_back_what_was_not_used() -> None:
    bucket = Bucket(60, lambda: 0.0)
    assert bucket.take(10) == 0
    assert bucket.take(1) == pytest.approx(10)
    bucket.give(10)
    assert bucket.take(0.5) == pytest.approx(0.5)


def inside(work: Callable[[Gate], Any], low: int = 1, high: int = 8) -> Any:
    async def run() -> Any:
        return await work(Gate(low, high))

    return asyncio.run(run())


def test_throttling_halves_once_for_all_that_went_together() -> None:
    async def work(gate: Gate) -> list[float]:
        entries = [await gate.enter() for _ in range(8)]
        for entry in entries:
            gate.throttled(entry)
        limits = [gate.limit]
        for _ in entries:
            gate.leave()
        for _ in range(5):
            gate.throttled(await gate.enter())
            limits.append(gate.limit)
            gate.leave()
        return limits

    assert inside(work) == [4, 2, 1, 1, 1, 1]


def test_replies_raise_the_limit_by_one_a_round() -> None:
    async def work(gate: Gate) -> list[float]:
        gate.throttled(await gate.enter())
        gate.throttled(await gate.enter())
        limits = []
        for _ in range(4):
            while gate.inside < int(gate.limit):
                await gate.enter()
            for _ in range(int(gate.limit)):
                gate.answered(1.0)
            limits.append(gate.limit)
        return limits

    limits = inside(work)
    assert all(0.6 < later - earlier <= 1 for earlier, later in zip([2, *limits], limits, strict=False))
    assert max(limits) <= 8


def test_slow_replies_lower_the_limit_and_even_ones_do_not() -> None:
    async def work(gate: Gate) -> list[float]:
        limits = []
        for seconds in (1.0, 1.2, 9.0, 9.0):
            for _ in range(WINDOW):
                gate.answered(seconds)
            limits.append(gate.limit)
        return limits

    assert inside(work) == pytest.approx([8, 8, 7.2, 6.48])


@given(st.lists(st.sampled_from(["enter", "leave", "throttled", "answered", "cancel"]), max_size=60))
def test_no_more_are_inside_than_the_limit_has_let_in(steps: list[str]) -> None:
    async def work(gate: Gate) -> None:
        tasks: list[asyncio.Task[int]] = []
        for step in steps:
            if step == "enter":
                tasks.append(asyncio.ensure_future(gate.enter()))
            elif step == "cancel" and tasks and not tasks[-1].done():
                tasks.pop().cancel()
            elif step == "leave" and gate.inside:
                gate.leave()
            elif step == "throttled":
                gate.throttled(10**9)
            elif step == "answered":
                gate.answered(1.0)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert 1 <= gate.limit <= 4
            assert 0 <= gate.inside <= 4
            waiting = [task for task in tasks if not task.done()]
            assert not waiting or gate.inside >= int(gate.limit)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    inside(work, 1, 4)
