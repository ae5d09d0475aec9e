"""The proxy does to answers what its faults say, the same way every time, and keeps the books of it."""

import http.client
import json
import socket
from urllib.parse import urlsplit

import pytest
from fault_proxy import FaultProxy, Plan, always, clean, hashed, scripted
from faults import FAULTS, Json


def reply(request: Json) -> Json:
    return {
        "id": "1",
        "model": request["model"],
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "four"}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
    }


def body(said: str) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": said}]}).encode()


def ask(proxy: FaultProxy, said: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=60)
    try:
        connection.request("POST", "/v1/chat/completions", body(said), {"Authorization": "Bearer k"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def port(proxy: FaultProxy) -> int:
    found = urlsplit(proxy.url).port
    assert found is not None
    return found


def under(fault: str) -> tuple[int, bytes]:
    with FaultProxy(reply, always(fault)) as proxy:
        return ask(proxy, "2 + 2?")


def names(plan: Plan, words: list[str]) -> list[str]:
    with FaultProxy(reply, plan) as proxy:
        for word in words:
            ask(proxy, word)
        return [logged.fault for logged in proxy.log]


def test_a_clean_proxy_hands_the_reply_on_and_counts_its_tokens():
    with FaultProxy(reply, clean) as proxy:
        status, answer = ask(proxy, "2 + 2?")
        assert (status, json.loads(answer)["choices"][0]["message"]["content"]) == (200, "four")
        ask(proxy, "2 + 2?")
        assert [(logged.asked.attempt, logged.asked.number) for logged in proxy.log] == [(0, 0), (1, 1)]
        assert proxy.usage() == (18, 4)
        assert proxy.log[0].asked.authorization == "Bearer k"


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("throttled_date", 429),
        ("no_quota", 429),
        ("error_500", 500),
        ("error_529", 529),
        ("unauthorized", 401),
        ("no_model", 404),
        ("too_long", 400),
        ("unprocessable", 422),
        ("html", 200),
    ],
)
def test_an_error_stands_in_for_the_server(fault, status):
    with FaultProxy(reply, always(fault)) as proxy:
        assert ask(proxy, "2 + 2?")[0] == status
        assert (proxy.log[0].usage, proxy.log[0].spent) == (None, None)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("reset", ConnectionResetError),
        ("reset_late", ConnectionResetError),
        ("closed", http.client.RemoteDisconnected),
        ("cut", http.client.IncompleteRead),
    ],
)
def test_a_connection_breaks_as_asked(fault, error):
    with pytest.raises(error):
        under(fault)


def test_what_a_broken_answer_cost_is_logged_as_spent_but_not_as_told():
    with FaultProxy(reply, always("cut")) as proxy:
        with pytest.raises(http.client.IncompleteRead):
            ask(proxy, "2 + 2?")
        assert (proxy.log[0].usage, proxy.log[0].spent) == (None, (9, 2))


@pytest.mark.parametrize("fault", ["body_no_json", "body_doubled", "html"])
def test_a_body_that_is_no_json(fault):
    with pytest.raises(ValueError, match=r"Expecting|Extra data|Illegal"):
        json.loads(under(fault)[1])


@pytest.mark.parametrize("fault", ["endless", "endless_drip"])
def test_an_endless_answer_goes_on_until_the_client_leaves(fault):
    with FaultProxy(reply, always(fault)) as proxy:
        connection = http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=60)
        connection.request("POST", "/v1/chat/completions", body("2 + 2?"))
        assert len(connection.getresponse().read(20)) == 20
        connection.close()


def test_an_answer_sent_twice_leaves_its_copy_on_the_connection():
    asked = body("2 + 2?")
    with FaultProxy(reply, always("twice")) as proxy, socket.create_connection(("127.0.0.1", port(proxy)), 60) as wire:
        wire.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(asked), asked))
        came = b""
        while came.count(b'"total_tokens": 11}}') < 2:
            came += wire.recv(4096)
        assert came.count(b"HTTP/1.1 200") == 2


def test_every_fault_forwards_or_stands_in_without_an_error_of_its_own():
    whole = set(FAULTS) - {"endless", "endless_drip"}
    with FaultProxy(reply, scripted({f"<{name}>": [name] for name in whole})) as proxy:
        for name in whole:
            try:
                ask(proxy, f"<{name}>")
            except (ConnectionError, http.client.HTTPException):
                assert name in {"reset", "reset_late", "closed", "cut"}
        assert sorted(logged.fault for logged in proxy.log) == sorted(whole)


def test_a_script_is_followed_per_body_and_ends():
    plan = scripted({"alpha": ["error_503", "error_500"], "beta": ["error_529"]})
    asked = ["alpha", "beta", "alpha", "gamma", "alpha", "beta"]
    assert names(plan, asked) == ["error_503", "error_529", "error_500", "", "", ""]


def test_faults_begin_after_a_number_of_calls():
    assert names(always("unauthorized", after=2), ["a", "b", "c", "a"]) == ["", "", "unauthorized", "unauthorized"]


def test_hashed_faults_are_a_function_of_body_attempt_and_seed():
    asked = [f"row {number}" for number in range(60)]
    first = names(hashed(["error_500", "html"], 0.5), asked)
    assert first == names(hashed(["error_500", "html"], 0.5), asked)
    assert first != names(hashed(["error_500", "html"], 0.5, seed=1), asked)
    assert set(first) == {"", "error_500", "html"}
    assert 15 < first.count("") < 45
