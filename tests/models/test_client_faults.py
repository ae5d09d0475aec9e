"""Every fault that a server or a network makes: how often the client asks again, and what the row gets."""

import json
import re
from dataclasses import replace

import pytest
from asking import QUICK, asking, attempts, echo, prompt, prompts, spec_of, unhurried, wait_for
from fault_proxy import FaultProxy, always, clean, hashed, scripted
from faults import FAULTS

from models.endpoint.outcomes import EndpointDown
from models.endpoint.retries import Retry

ONCE_MORE = [
    "throttled_seconds",
    "throttled_date",
    "throttled_ms",
    "throttled_reset",
    "throttled",
    "error_500",
    "error_503",
    "error_529",
    "reset",
    "reset_late",
    "closed",
    "cut",
    "endless",
    "endless_drip",
    "html",
    "body_no_json",
    "body_doubled",
    "no_choices",
    "null_content",
    "empty_content",
    "mistyped",
]
STATED = {  # seconds, at least and at most; a date has no parts of a second
    "throttled_seconds": (7.0, 7.0),
    "throttled_date": (5.0, 9.0),
    "throttled_ms": (0.15, 0.15),
    "throttled_reset": (62.5, 62.5),
}
TAKEN = {  # and the flag that tells a reader of the ledger
    "slow_start": "",
    "slow_drip": "",
    "body_no_utf8": "replaced_characters",
    "json": "",
    "no_json": "",
    "no_usage": "usage_estimated",
    "length": "",
    "other_model": "other_model",
    "surrogates": "replaced_characters",
    "nul": "replaced_characters",
}
ROW = {
    "too_long": "too_long",
    "bad_request": "bad_request",
    "unprocessable": "bad_request",
    "content_filter": "filtered",
}
ENDPOINT = ["no_quota", "unauthorized", "forbidden", "no_model"]
ANOMALIES = ["body_no_json", "no_choices", "null_content", "empty_content", "mistyped"]
TRANSIENT = ["error_500", "error_503", "error_529", "reset", "closed", "cut"]


UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def test_every_fault_has_a_stated_end():
    assert sorted([*ONCE_MORE, *TAKEN, "twice", *ROW, *ENDPOINT]) == sorted(FAULTS)


@pytest.mark.parametrize("fault", ONCE_MORE)
def test_what_may_pass_is_asked_once_more(fault, tmp_path):
    waits: list[float] = []
    given = {"timeout": 1.0} if fault.startswith("endless") else {}
    with (
        FaultProxy(echo, scripted({"2 + 2": [fault]})) as proxy,
        asking(spec_of(proxy.url, "m", **given), tmp_path / "r.sqlite", clock=unhurried(waits)) as model,
    ):
        reply, other = model.complete([prompt("2 + 2?"), prompt("another")])
        assert (reply.failure, reply.finish_reason) == ("", "stop")
        assert reply.text.startswith("reply ")
        assert other.text.startswith("reply ")
        assert proxy.calls == 3
        assert len(attempts(tmp_path / "r.sqlite")) == 3
    [wait] = waits
    least, most = STATED.get(fault, (0, 0))
    assert least <= wait <= most + QUICK.base


@pytest.mark.parametrize(("fault", "flag"), TAKEN.items())
def test_what_is_odd_but_usable_is_taken(fault, flag, tmp_path):
    with (
        FaultProxy(echo, scripted({"2 + 2": [fault]})) as proxy,
        asking(spec_of(proxy.url, "m", max_concurrency=1), tmp_path / "r.sqlite") as model,
    ):
        first, second, third = model.complete([prompt("2 + 2?"), prompt("3 + 3?"), prompt("4 + 4?")])
        assert (first.failure, proxy.calls) == ("", 3)
        first.text.encode()  # no half character is left
        assert "\0" not in first.text
        unchanged = [echo(logged.asked.request)["choices"][0]["message"]["content"] for logged in proxy.log]
        assert [second.text, third.text] == unchanged[1:]
        assert [row["flags"] for row in attempts(tmp_path / "r.sqlite")] == [flag, "", ""]


def test_the_copy_of_an_answer_is_not_taken_for_the_next_rows_answer(tmp_path):
    with (
        FaultProxy(echo, scripted({"2 + 2": ["twice"]})) as proxy,
        asking(spec_of(proxy.url, "m"), tmp_path / "r.sqlite") as model,
    ):
        [first] = model.complete([prompt("2 + 2?")])
        wait_for(lambda: not proxy.busy)
        [second] = model.complete([prompt("3 + 3?")])
        assert proxy.calls == 2
        assert first.text != second.text


@pytest.mark.parametrize(("fault", "failure"), ROW.items())
def test_what_is_wrong_with_one_row_ends_that_row(fault, failure, tmp_path):
    with (
        FaultProxy(echo, scripted({"2 + 2": [fault]})) as proxy,
        asking(spec_of(proxy.url, "m"), tmp_path / "r.sqlite") as model,
    ):
        bad, good = model.complete([prompt("2 + 2?"), prompt("another")])
        assert (bad.failure, bad.finish_reason, bad.text) == (failure, "error", "")
        assert bad.detail
        assert (good.failure, proxy.calls) == ("", 2)


@pytest.mark.parametrize("fault", ENDPOINT)
def test_what_a_person_must_mend_is_said_in_one_line_and_keeps_what_was_answered(fault, tmp_path):
    with FaultProxy(echo, always(fault, after=3)) as proxy:
        spec = spec_of(proxy.url, "m", max_concurrency=1)
        with asking(spec, tmp_path / "r.sqlite") as model:
            futures = [model.submit(each) for each in prompts(6)]
            assert [future.result(60).failure for future in futures[:3]] == ["", "", ""]
            for future in futures[3:]:
                with pytest.raises(EndpointDown, match=r"^[^\n]*tiny[^\n]*$"):
                    future.result(60)
        assert 4 <= proxy.calls <= 4 + 1
        proxy.forget()
        proxy.plan = clean
        with asking(spec, tmp_path / "r.sqlite") as model:
            assert not any(reply.failure for reply in model.complete(prompts(6)))
        assert proxy.calls == 3


def test_a_server_that_is_not_there_is_said_in_one_line_after_six_tries(tmp_path):
    waits: list[float] = []
    with FaultProxy(echo) as proxy, asking(spec_of(proxy.url, "m"), tmp_path / "r.sqlite") as model:
        model.complete([prompt("2 + 2?")])
        spec = spec_of(proxy.url, "m", max_concurrency=1)
    with asking(spec, tmp_path / "r.sqlite", clock=unhurried(waits)) as model:
        assert [reply.failure for reply in model.complete([prompt("2 + 2?")])] == [""]
        with pytest.raises(EndpointDown, match=rf"^[^\n]*{spec.base_url}[^\n]*start the server, or mend base_url$"):
            model.complete([prompt("3 + 3?")])
    assert len(waits) == QUICK.tries - 1


@pytest.mark.parametrize("fault", TRANSIENT)
def test_a_server_that_stays_broken_is_given_up_after_six_tries(fault, tmp_path):
    with (
        FaultProxy(echo, scripted({"2 + 2": [fault] * 9})) as proxy,
        asking(spec_of(proxy.url, "m"), tmp_path / "r.sqlite") as model,
    ):
        reply, other = model.complete([prompt("2 + 2?"), prompt("another")])
        assert (reply.failure, other.failure, proxy.calls) == ("unreachable", "", QUICK.tries + 1)


@pytest.mark.parametrize("fault", ANOMALIES)
def test_a_reply_that_stays_unusable_is_empty_after_one_more_try_and_is_not_bought_again(fault, tmp_path):
    with FaultProxy(echo, scripted({"2 + 2": [fault] * 9})) as proxy:
        for _ in range(2):
            with asking(spec_of(proxy.url, "m"), tmp_path / "r.sqlite") as model:
                [reply] = model.complete([prompt("2 + 2?")])
                assert (reply.failure, reply.finish_reason, proxy.calls) == ("empty", "error", 2)


def test_an_endpoint_that_throttles_for_ever_is_given_up_when_the_time_is_over(tmp_path):
    policy = Retry(tries=2, seconds=0.5, base=0.002, cap=0.01)
    waits: list[float] = []
    clock = replace(unhurried(waits), monotonic=lambda: sum(waits))
    with (
        FaultProxy(echo, always("throttled_ms")) as proxy,
        asking(spec_of(proxy.url, "m"), tmp_path / "r.sqlite", retry=policy, clock=clock) as model,
    ):
        [reply] = model.complete([prompt("2 + 2?")])
        assert reply.failure == "unreachable"
        assert proxy.calls == 4  # at 0, 0.15, 0.3 and 0.45 s


def test_throttling_halves_how_many_are_asked_at_once_and_stops_no_row(tmp_path):
    words = {f"number {number:03d}": ["throttled_ms"] for number in range(8)}
    with (
        FaultProxy(echo, scripted(words)) as proxy,
        asking(spec_of(proxy.url, "m", max_concurrency=8), tmp_path / "r.sqlite", clock=unhurried([])) as model,
    ):
        assert not any(reply.failure for reply in model.complete(prompts(12)))
        assert proxy.calls == 12 + 8
        assert model.progress().limit < 8


def test_the_body_is_kept_byte_for_byte_whatever_is_in_it(tmp_path):
    odd = ["html", "body_no_json", "body_doubled", "body_no_utf8", "mistyped", "surrogates", "nul", "no_usage"]
    with FaultProxy(echo, scripted({f"<{name}>": [name] for name in odd})) as proxy:
        with asking(spec_of(proxy.url, "m"), tmp_path / "r.sqlite") as model:
            model.complete([prompt(f"<{name}>") for name in odd])
        kept = sorted(bytes(row["body"]) for row in attempts(tmp_path / "r.sqlite"))
        assert kept == sorted(logged.answer.body for logged in proxy.log)


@pytest.mark.parametrize("seed", range(3))
def test_amid_all_faults_every_row_gets_its_own_reply_and_the_ledger_is_exact(seed, tmp_path):
    mixed = sorted({*ONCE_MORE, *TAKEN, *ROW} - {"endless", "endless_drip", "twice", "slow_start", "bad_request"})
    with FaultProxy(echo, hashed(mixed, 0.5, seed)) as proxy:
        spec = spec_of(proxy.url, "m", max_concurrency=16)
        with asking(spec, tmp_path / "r.sqlite", clock=unhurried([])) as model:
            replies = model.complete(prompts(150))
        log = {logged.asked.said: logged for logged in proxy.log}  # the last answer of each row
        ends = {"": 0, "bad": 0}
        for wanted, reply in zip(prompts(150), replies, strict=True):
            last = log[wanted.messages[-1].content]
            ends["bad" if reply.failure else ""] += 1
            if not reply.failure:
                said = json.loads(last.answer.body.decode("utf-8", "replace"))["choices"][0]["message"]["content"]
                assert reply.text == UNSTORABLE.sub("\ufffd", said)
        ledger = attempts(tmp_path / "r.sqlite")
        assert len(ledger) == proxy.calls
        told = [row for row in ledger if "usage_estimated" not in row["flags"]]
        sums = [sum(row[column] for row in told) for column in ("prompt_tokens", "completion_tokens")]
        assert tuple(sums) == proxy.usage()
        assert min(ends.values()) > 5
