"""What the endpoint client promises, counted between it and a real `transformers serve` behind the fault proxy."""

import json
import random
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import asking as asking_process
import pytest
from asking import PRICES, asking, attempts, echo, prompt, prompts, spec_of, wait_for
from fault_proxy import FaultProxy, always, clean, hashed, scripted
from pydantic import BaseModel, ConfigDict, field_validator
from tiny_server import TinyServer, chat_model, tiny_server

from models.converse import Collected, converse
from models.dialogue import Accepted, Complete, Dialogue, Emit, Rejected
from models.endpoint.budget import Budget
from models.endpoint.client import EndpointModel
from models.endpoint.outcomes import EndpointDown
from models.endpoint.prices import Tokens
from models.endpoint.spec import EndpointSpec
from models.endpoint.store import ResponseStore
from models.protocol import Completion, Prompt
from models.structured import Structured, Unmet, structured
from warehouse.errors import InputError
from warehouse.records import Example, Message

PASSING = ["throttled_ms", "error_500", "error_503", "error_529", "reset", "reset_late", "cut", "html", "no_choices"]
MIXED = [*PASSING, "null_content", "mistyped", "no_usage", "length", "content_filter", "too_long", "surrogates", "nul"]
UNSEEN = {"reset", "reset_late", "cut"}  # no whole answer comes


@pytest.fixture(scope="module")
def server(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyServer]:
    folder = tmp_path_factory.mktemp("serve")
    with tiny_server(chat_model(tiny_model_dir, folder / "tiny"), folder / "serve.log") as running:
        yield running


@pytest.fixture
def proxy(server: TinyServer) -> Iterator[FaultProxy]:
    with FaultProxy(server.url) as running:
        yield running


@pytest.fixture
def spec(server: TinyServer, proxy: FaultProxy) -> EndpointSpec:
    return spec_of(proxy.url, server.model)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "responses.sqlite"


def texts(replies: list[Completion]) -> list[tuple[str, str, str]]:
    return [(reply.text, reply.finish_reason, reply.failure) for reply in replies]


def ask(spec: EndpointSpec, store: Path, wanted: list[Prompt], **settings: object) -> list[Completion]:
    with asking(spec, store, **settings) as model:
        return model.complete(wanted)


# I1
def test_a_bad_request_affects_its_own_row_alone(proxy, spec, store):
    proxy.plan = scripted({"number 003": ["bad_request"]})
    replies = ask(spec, store, prompts(10))
    assert [reply.failure for reply in replies] == [*[""] * 3, "bad_request", *[""] * 6]
    assert "must alternate" in replies[3].detail
    assert proxy.calls == 10


# I2
def test_no_paid_reply_is_lost_by_an_error_of_whoever_reads_it(proxy, spec, store):
    def careless(number: int, wanted: Prompt) -> Dialogue[str]:
        [reply] = yield [Complete("generator", wanted)]
        if number == 2:
            raise KeyError("a parse bug")
        return str(reply.text)

    def dialogues(first: int) -> list[Dialogue[str]]:
        return [careless(first + number, wanted) for number, wanted in enumerate(prompts(6))]

    with asking(spec, store) as model, pytest.raises(KeyError):
        converse(dialogues(0), {"generator": model})
    answered = sum(1 for row in attempts(store) if row["outcome"] in ("ok", "length"))
    assert answered == proxy.calls >= 3
    with asking(spec, store) as model:
        assert all(converse(dialogues(10), {"generator": model}))
    assert proxy.calls == 6


# I3
def test_an_unchanged_rerun_asks_nothing_but_what_failed(proxy, spec, store):
    proxy.plan = scripted(
        {"number 001": ["error_503"] * 6, "number 002": ["bad_request"], "number 004": ["body_no_json"] * 2}
    )
    first = ask(spec, store, prompts(6))
    assert [reply.failure for reply in first] == ["", "unreachable", "bad_request", "", "empty", ""]
    assert proxy.calls == 3 + 6 + 1 + 2
    proxy.forget()
    second = ask(spec, store, prompts(6))
    assert sorted(logged.asked.said for logged in proxy.log if logged.asked.attempt == 0) == [
        "Say number 001.",
        "Say number 002.",
    ]
    assert [texts(second)[kept] for kept in (0, 3, 4, 5)] == [texts(first)[kept] for kept in (0, 3, 4, 5)]


def test_a_rerun_of_a_finished_job_asks_nothing(proxy, spec, store):
    first = ask(spec, store, prompts(5))
    assert texts(ask(spec, store, prompts(5))) == texts(first)
    assert proxy.calls == 5


# I4
def test_one_row_more_is_one_call_more(proxy, spec, store):
    ask(spec, store, prompts(5))
    ask(spec, store, [prompt("A new row."), *prompts(5)])
    assert proxy.calls == 6


# I5
def test_whatever_changes_the_request_is_asked_anew(proxy, spec, store):
    system = (Message("system", "Answer in French."), Message("user", "Say number 000."))
    schema = json.dumps({"type": "object"})
    changed: list[tuple[Prompt, dict[str, object]]] = [
        (prompts(1)[0], {}),
        (Prompt(system, max_tokens=4), {}),
        (Prompt((Message("system", "Answer in German."), system[1]), max_tokens=4), {}),
        *((prompts(1, **change)[0], {}) for change in ({"temperature": 0.5}, {"top_p": 0.5}, {"max_tokens": 5})),
        *((prompts(1, **change)[0], {}) for change in ({"stop": ("x",)}, {"seed": 7}, {"draw": 1})),
        (prompts(1, presence_penalty=0.5)[0], {}),
        (prompts(1, schema=schema)[0], {"structured": "json_schema"}),
        (prompts(1, schema=schema)[0], {"structured": "json_object"}),
        (prompts(1)[0], {"namespace": ""}),
        (prompts(1)[0], {"namespace": "another"}),
        (prompts(1)[0], {"revision": "2"}),
        (prompts(1)[0], {"extra_body": {"frequency_penalty": 0.5}}),
    ]
    for _ in range(2):
        for wanted, change in changed:
            [reply] = ask(spec.model_copy(update=change), store, [wanted])
            assert reply.failure == "", reply.detail
    assert proxy.calls == len(changed)
    assert len({row["key"] for row in attempts(store)}) == len(changed)


def test_another_model_of_the_same_server_is_asked_anew(store):
    with FaultProxy(echo) as proxy:
        first, other = ([*ask(spec_of(proxy.url, model), store, prompts(2))] for model in ("one", "other"))
        assert proxy.calls == 4
        assert not {reply.text for reply in first} & {reply.text for reply in other}


# I6
class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", title="Answer")
    answer: int

    @field_validator("answer")
    @classmethod
    def _a_bug(cls, value: int) -> int:
        raise ValueError("no answer is ever right")


class Mended(BaseModel):
    model_config = ConfigDict(extra="forbid", title="Answer")
    answer: int


def test_a_changed_reader_asks_nothing_anew(proxy, spec, store):
    proxy.plan = always("json")
    spec = spec.model_copy(update={"structured": "json_object"})
    with asking(spec, store) as model:
        [unmet] = converse([structured("generator", prompt("2 + 2?"), Strict)], {"generator": model})
        assert isinstance(unmet, Unmet)
        assert proxy.calls == 3
        [met] = converse([structured("generator", prompt("2 + 2?"), Mended)], {"generator": model})
        assert isinstance(met, Structured)
        assert met.value == Mended(answer=4)
        assert proxy.calls == 3


# I7
@pytest.mark.parametrize("seed", range(3))
def test_after_a_kill_no_more_is_asked_twice_than_was_in_flight(seed, store):
    rows, concurrency, kill_at = 60, 4, random.Random(seed).randrange(5, 40)
    with FaultProxy(echo, always("slow_start", after=kill_at + 8)) as proxy:  # lest all is done before the kill
        process = start(proxy.url, "m", store, rows, concurrency)
        wait_for(lambda: proxy.calls >= kill_at)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert kill_at <= len(answered(proxy)) < rows
        proxy.plan = hashed(["error_503"], 0.1, seed)
        replies = finish(start(proxy.url, "m", store, rows, concurrency))
        assert [failure for _, failure in replies] == [""] * rows
        twice = sum(count - 1 for count in answered(proxy).values())
        assert twice <= concurrency


def test_after_a_kill_amid_a_real_server_the_job_ends_as_if_nothing_had_been(server, proxy, spec, store, tmp_path):
    process = start(proxy.url, server.model, store, 12, 4)
    wait_for(lambda: proxy.calls >= 5)
    process.kill()
    process.communicate()
    replies = finish(start(proxy.url, server.model, store, 12, 4))
    assert proxy.calls <= 12 + 4
    assert replies == [[text, failure] for text, _, failure in texts(ask(spec, tmp_path / "other", prompts(12)))]


def start(url: str, model: str, store: Path, rows: int, concurrency: int) -> "subprocess.Popen[str]":
    words = [url, model, store, rows, concurrency]
    command = [sys.executable, str(asking_process.__file__), *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> list[list[str]]:
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    found: list[list[str]] = json.loads(out)
    return found


def answered(proxy: FaultProxy) -> Counter[bytes]:
    """How often each body was answered well."""
    return Counter(logged.asked.body for logged in list(proxy.log) if logged.answer.status == 200)


# I8
def test_the_ledger_equals_the_servers_log_to_the_token(proxy, spec, store):
    turns = [(MIXED[number], MIXED[(5 * number + 3) % len(MIXED)]) for number in range(len(MIXED))]
    proxy.plan = scripted({f"number {number:03d}": turn for number, turn in enumerate(turns)})
    with asking(spec, store) as model:
        model.complete(prompts(len(MIXED) + 3))
        progress = model.progress()
    ledger, log = attempts(store), list(proxy.log)
    assert {logged.fault for logged in log} == {"", *MIXED}
    assert len(ledger) == len(log) == progress.requests == sum(progress.outcomes.values())
    whole = [logged for logged in log if logged.fault not in UNSEEN]
    assert Counter(row["status"] for row in ledger if row["status"]) == Counter(each.answer.status for each in whole)
    estimated = [row for row in ledger if "usage_estimated" in row["flags"]]
    assert len(estimated) == sum(logged.fault == "no_usage" for logged in log)
    told = [row for row in ledger if row not in estimated]
    assert (total(told, "prompt_tokens"), total(told, "completion_tokens")) == proxy.usage()
    assert total(told, "cost") == sum(PRICES.cost(Tokens(*logged.usage)) for logged in log if logged.usage)
    assert progress.prompt_tokens == total(ledger, "prompt_tokens")
    assert progress.completion_tokens == total(ledger, "completion_tokens")
    assert progress.cost == total(ledger, "cost")


def total(ledger: list[dict[str, object]], column: str) -> Decimal:
    return sum((Decimal(str(row[column])) for row in ledger), Decimal(0))


# I9
@pytest.mark.parametrize("limit", [{"tokens": 200}, {"usd": Decimal("0.00005")}, {"requests": 7}])
def test_a_budget_is_never_exceeded_and_more_of_it_goes_on_where_it_ended(limit, proxy, spec, store):
    proxy.plan = scripted({"number 001": ["null_content"], "number 002": ["error_500"], "number 003": ["cut"]})
    replies = ask(spec, store, prompts(20), budget=Budget(**limit))
    ends = Counter(reply.failure for reply in replies)
    assert ends["over_budget"] > 0
    assert ends[""] > 0
    prompt_tokens, completion_tokens = proxy.usage()
    assert prompt_tokens + completion_tokens <= limit.get("tokens", 10**9)
    assert PRICES.cost(Tokens(prompt_tokens, completion_tokens)) <= limit.get("usd", 10**9)
    assert proxy.calls <= limit.get("requests", 10**9)
    proxy.forget()
    proxy.plan = clean
    assert not any(reply.failure for reply in ask(spec, store, prompts(20)))
    assert proxy.calls == ends["over_budget"]


# I10
def test_each_row_ends_in_one_stated_outcome(proxy, spec, store):
    def row(number: int, wanted: Prompt) -> Dialogue[None]:
        [reply] = yield [Complete("generator", wanted)]
        example = Example((*wanted.messages, Message("assistant", reply.text or "none")), "test", {"row": number})
        end = Rejected(reply.failure, reply.detail, example) if reply.failure else Accepted(example)
        yield [Emit((end,))]

    wanted = prompts(30)
    doomed = {
        "number 000": "error_500",
        "number 001": "body_no_json",
        "number 002": "content_filter",
        "number 003": "too_long",
    }
    proxy.plan = scripted({word: [fault] * 6 for word, fault in doomed.items()})
    ends = Collected()
    with asking(spec, store) as model:
        converse([row(*each) for each in enumerate(wanted)], {"generator": model}, emit=ends)
    found = ends.rows()
    assert [end.example.meta["row"] for end in found] == list(range(30))
    assert [end.reason for end in found if isinstance(end, Rejected)] == [
        "unreachable",
        "empty",
        "filtered",
        "too_long",
    ]
    assert all(end.detail for end in found if isinstance(end, Rejected))


# I11
def test_a_job_whose_replies_are_all_kept_opens_no_connection(proxy, spec, store):
    first = ask(spec, store, prompts(5))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.setblocking(False)
        elsewhere = spec.model_copy(update={"base_url": f"http://127.0.0.1:{listening.getsockname()[1]}/v1"})
        for settings in ({}, {"caching": "only"}):
            assert texts(ask(elsewhere, store, prompts(5), **settings)) == texts(first)
        with pytest.raises(BlockingIOError):
            listening.accept()
    [missing] = ask(elsewhere, store, [prompt("never asked")], caching="only")
    assert missing.failure == "unreachable"
    assert proxy.calls == 5


# I12
def test_replies_are_the_same_for_one_at_a_time_and_sixteen_and_in_any_order(proxy, spec, tmp_path):
    wanted = [prompt(f"Say{' word' * number}.") for number in range(16)]  # told apart by their tokens
    shuffled = random.Random(0).sample(range(16), 16)
    one = ask(spec.model_copy(update={"max_concurrency": 1}), tmp_path / "one", wanted)
    assert len({reply.usage.prompt_tokens for reply in one}) == 16
    assert proxy.most == 1
    proxy.plan = hashed(PASSING, 0.3, seed=2)
    proxy.forget()
    many = spec.model_copy(update={"max_concurrency": 16})
    other = ask(many, tmp_path / "many", [wanted[number] for number in shuffled])
    assert proxy.most > 1
    assert [other[shuffled.index(number)] for number in range(16)] == one


def test_a_server_that_knows_another_model_says_so_and_what_was_answered_is_kept(proxy, spec, store):
    first = ask(spec, store, prompts(3))
    wrong = spec.model_copy(update={"model": "nobody/no-such-model"})
    replies = ask(wrong, store, prompts(3))
    assert {reply.failure for reply in replies} == {"bad_request"}
    assert all("no-such-model" in reply.detail for reply in replies)
    assert texts(ask(spec, store, prompts(3))) == texts(first)
    assert proxy.calls == 6


def test_a_server_that_refuses_every_row_stops_the_job_with_its_own_words(proxy, spec, store):
    strange = spec.model_copy(update={"extra_body": {"no_such_field": 1}, "max_concurrency": 1})
    with asking(strange, store) as model, pytest.raises(EndpointDown, match=r"^[^\n]*no_such_field[^\n]*$"):
        model.complete(prompts(30))
    assert 11 <= proxy.calls <= 11 + 1


@pytest.mark.parametrize("path", ["/v2", ""])
def test_a_wrong_address_is_said_in_one_line(path, proxy, spec, store):
    ask(spec, store, prompts(2))
    wrong = spec.model_copy(update={"base_url": f"{proxy.url}{path}", "max_concurrency": 1})
    with asking(wrong, store) as model:
        assert [reply.failure for reply in model.complete(prompts(2))] == ["", ""]
        with pytest.raises(EndpointDown, match=rf"^[^\n]*{wrong.base_url}[^\n]*$"):
            model.complete(prompts(4))
    assert proxy.calls == 3


def test_a_key_is_sent_and_kept_nowhere(monkeypatch, proxy, spec, store):
    monkeypatch.setenv("TINY_KEY", "sk-very-secret")
    proxy.plan = scripted({"number 000": ["bad_request"]})
    ask(spec.model_copy(update={"api_key_env": "TINY_KEY"}), store, prompts(2))
    assert {logged.asked.authorization for logged in proxy.log} == {"Bearer sk-very-secret"}
    assert not any(b"sk-very-secret" in file.read_bytes() for file in store.parent.iterdir())
    ask(spec, store, prompts(2)[1:])
    assert proxy.calls == 2


def test_two_processes_on_one_store_buy_nothing_twice(server, proxy, store):
    both = [start(proxy.url, server.model, store, 12, 4) for _ in range(2)]
    first, second = map(finish, both)
    assert first == second
    assert all(failure == "" for _, failure in first)
    assert proxy.calls == 12


def test_a_schema_that_no_reply_meets_ends_after_two_more_tries(proxy, spec, store):
    class Verdict(BaseModel):
        model_config = ConfigDict(extra="forbid")
        right: bool
        because: str

    settled = spec.model_copy(update={"structured": "json_object"})
    for _ in range(2):
        with asking(settled, store) as model:
            [unmet] = converse([structured("judge", prompt("Is 2 + 2 = 4?"), Verdict)], {"judge": model})
        assert isinstance(unmet, Unmet)
        assert (unmet.reason, len(unmet.keys)) == ("cut_off", 3)
        assert unmet.detail
        assert proxy.calls == 3


def test_a_budget_in_dollars_needs_prices(spec, tmp_path):
    free = spec.model_copy(update={"prices": None})
    with ResponseStore(tmp_path / "r.sqlite") as store, pytest.raises(InputError, match="price"):
        EndpointModel(free, store, Budget(usd=Decimal(5)))
