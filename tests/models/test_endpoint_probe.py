"""What an endpoint can do is found out by asking it, once, and only where something needs it."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from scripted_server import Body, Says, ask, reply, serving

from models.converse import converse
from models.endpoint.client import EndpointModel
from models.endpoint.probe import SCHEMA, Capabilities, stated_context
from models.endpoint.retries import Retry
from models.endpoint.store import ResponseStore
from models.structured import Structured, structured
from warehouse.errors import InputError
from warehouse.records import canonical

SCHEMAS = canonical({"type": "object", "properties": {}, "additionalProperties": False})
WORDS = ["once", "there", "was", "a", "tree", "that", "stood", "alone"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ResponseStore]:
    with ResponseStore(tmp_path / "responses.sqlite") as opened:
        yield opened


def server(*able: str, refuses: bool = False) -> Any:
    """A server that can do what is named; what it cannot it ignores, or refuses where it `refuses`."""

    def script(body: Body, number: int) -> Says:
        kind = body.get("response_format", {}).get("type", "")
        if kind and kind not in able and refuses:
            return Says({"error": {"message": f"unknown response_format {kind}"}}, 400)
        if kind == "json_schema" and kind in able:
            properties = body["response_format"]["json_schema"]["schema"].get("properties", {})
            return Says(reply(json.dumps({name: one["enum"][0] for name, one in properties.items() if "enum" in one})))
        if kind == "json_object" and kind in able:
            return Says(reply('{"colour": "red"}'))
        words = list(WORDS)
        if body["temperature"] and "samples" in able:
            words.append(str(body["seed"]) if "seeded" in able else str(number_of()))
        text = " ".join(words)
        if "stop" in able and body.get("stop"):
            text = text.partition(body["stop"][0])[0]
        answer = reply(text)
        if "logprobs" in able and body.get("logprobs"):
            answer["choices"][0]["logprobs"] = {"content": [{"token": word, "logprob": -1.0} for word in words]}
        return Says(answer)

    calls = iter(range(1000))

    def number_of() -> int:
        return next(calls)

    return script


ALL = ("samples", "seeded", "json_schema", "json_object", "logprobs", "stop")
CASES = [ALL, (), ("samples",), ("seeded",), ("samples", "seeded", "stop"), ("json_object", "logprobs")]


@pytest.mark.parametrize("refuses", [False, True])
@pytest.mark.parametrize("able", CASES, ids=" ".join)
def test_what_a_server_can_do_is_found(store: ResponseStore, able: tuple[str, ...], refuses: bool) -> None:
    with serving(server(*able, refuses=refuses)) as asked:
        with EndpointModel(asked.spec(), store, retry=Retry(base=0.001)) as model:
            found = model.capabilities()
            calls = len(asked.bodies)
            assert calls <= 8
            model.capabilities()
        expected = {name: name in able for name in ALL} | {"max_context": None}
        if "samples" not in able:
            expected["seeded"] = True  # whoever says the same thing always does so with the same seed
        assert asdict(found) == expected
        assert [body["temperature"] for body in asked.bodies][:3] == [1.0] * 3  # a server may freeze what comes first
        with EndpointModel(asked.spec(), store) as model:
            assert model.capabilities() == found
        assert len(asked.bodies) == calls
    with EndpointModel(asked.spec(), store) as model:  # nobody listens there any more
        assert model.capabilities() == found


def test_a_server_that_ignores_the_field_is_not_believed(store: ResponseStore) -> None:
    with serving(server("json_object")) as asked, EndpointModel(asked.spec(), store) as model:
        model.complete([ask("in JSON", schema=SCHEMAS)])
        assert asked.bodies[-1]["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize(("able", "sent"), [(ALL, "json_schema"), (("json_object",), "json_object"), ((), None)])
def test_a_schema_goes_the_strictest_way(store: ResponseStore, able: tuple[str, ...], sent: str | None) -> None:
    with serving(server(*able)) as asked, EndpointModel(asked.spec(), store) as model:
        model.complete([ask("x", schema=SCHEMAS), ask("y", schema=SCHEMAS)])
        [one, other] = [body.get("response_format") for body in asked.bodies[-2:]]
        assert one == other
        assert (one or {"type": None})["type"] == sent
        known = len(asked.bodies)
        with EndpointModel(asked.spec(structured="json_object"), store) as told:
            told.complete([ask("z", schema=SCHEMAS)])
        assert len(asked.bodies) == known + 1


def test_nothing_is_probed_before_something_needs_it(store: ResponseStore) -> None:
    with serving(server(*ALL)) as asked, EndpointModel(asked.spec(), store) as model:
        model.complete([ask("a"), ask("b")])
        assert len(asked.bodies) == 2


def test_a_run_that_is_all_cached_needs_no_probe(store: ResponseStore) -> None:
    with serving(server(*ALL)) as asked:
        with EndpointModel(asked.spec(), store) as model:
            first = model.complete([ask("x", schema=SCHEMAS)])
        spec = asked.spec()
    with EndpointModel(spec, store) as model:
        assert model.complete([ask("x", schema=SCHEMAS)]) == first
        assert model.progress().requests == 0


def test_needs_are_checked_with_a_readable_line(store: ResponseStore) -> None:
    with serving(server("logprobs")) as asked, EndpointModel(asked.spec(), store) as model:
        model.require("logprobs")
        with pytest.raises(InputError, match="endpoint scripted was asked and lacks stop, json_schema"):
            model.require("logprobs", "stop", "json_schema")
        with pytest.raises(InputError, match="unknown capability tools; known: samples"):
            model.require("tools")


def test_an_endpoint_that_does_not_answer_is_not_remembered(store: ResponseStore) -> None:
    with serving(lambda *_: Says(b"", 503)) as asked:
        with EndpointModel(asked.spec(), store, retry=Retry(tries=1)) as model:
            [found] = model.complete([ask("x", schema=SCHEMAS)])
            assert found.failure == "unreachable"
            with pytest.raises(InputError, match="could not be asked what it can do: unreachable"):
                model.capabilities()
        with EndpointModel(asked.spec(), store, caching="only") as model:
            assert model.complete([ask("x", schema=SCHEMAS)])[0].failure == "unreachable"
    assert store.read(lambda c: c.execute("SELECT count(*) FROM capabilities").fetchone()) == (0,)


def test_capabilities_survive_json() -> None:
    found = Capabilities(True, False, True, False, True, False, 4096)
    assert Capabilities.from_json(found.as_json()) == found


def test_servers_state_their_context_in_several_ways() -> None:
    def stated(entry: dict[str, Any]) -> int | None:
        return stated_context(
            json.dumps({"data": [{"id": "other", "max_model_len": 1}, {"id": "m"} | entry]}).encode(), "m"
        )

    assert stated({"max_model_len": 4096}) == 4096
    assert stated({"context_length": 8192}) == 8192
    assert stated({"meta": {"n_ctx": 512}}) == 512
    assert stated({"max_model_len": "many"}) is None
    assert stated_context(b"<html>", "m") is stated_context(b'{"data": 3}', "m") is None


def test_structured_values_come_through_an_endpoint(store: ResponseStore) -> None:
    from pydantic import BaseModel, ConfigDict

    class Colour(BaseModel):
        model_config = ConfigDict(extra="forbid")
        colour: str

    def script(body: Body, number: int) -> Says:
        return Says(reply("red" if len(body["messages"]) == 1 else '{"colour": "red"}'))

    with serving(script) as asked, EndpointModel(asked.spec(structured="prompt"), store) as model:
        [found] = converse([structured("generator", ask("Name one."), Colour)], {"generator": model})
        assert isinstance(found, Structured)
        assert (found.value.colour, len(set(found.keys))) == ("red", 2)
        assert all(store.find(key, "completion", 1) for key in found.keys)
        assert SCHEMA not in asked.texts()[0]
