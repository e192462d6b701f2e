"""Prometheus gates against a real Prometheus, and against servers that misbehave."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler

import pytest

from app.core.group_policy import PrometheusGate
from app.core.holds import HoldCode
from app.services.prometheus_gates import KEPT_S, STALE_S, PrometheusGates
from tests import prometheus
from tests.prometheus import serving

OPEN = b'{"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1, "1"]}]}}'


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    running = prometheus.private_server()
    try:
        address = running.__enter__()
    except prometheus.Unavailable as reason:
        pytest.skip(str(reason))
    try:
        yield address
    finally:
        running.__exit__(None, None, None)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gates(clock: Clock) -> Iterator[PrometheusGates]:
    found = PrometheusGates(clock)
    yield found
    found.close()


def said(gates: PrometheusGates, gate: PrometheusGate) -> str:
    """Why it is shut, asked now; empty: it is open."""
    gates.refresh([gate])
    holds = gates.holds([gate])
    return holds[0].text.removeprefix(f"health gate “{gate.name}” is shut: ") if holds else ""


@pytest.mark.parametrize(
    "query", ["vector(1)", "1", "load", "up", 'errors{part="b"} > 5', "sum(errors) < bool 8", "absent(no_such_metric)"]
)
def test_what_holds_opens(server: str, gates: PrometheusGates, query: str) -> None:
    assert said(gates, PrometheusGate("g", server, query)) == ""


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("vector(0)", "Prometheus answers with 0"),
        ("errors", "Prometheus answers with 0 for __name__=errors"),
        ("sum(errors) < bool 5", "Prometheus answers with 0"),
        ("sum(errors) < 5", "Prometheus has no sample for the query"),
        ("no_such_metric", "Prometheus has no sample for the query"),
        ("absent(load)", "Prometheus has no sample for the query"),
        ("vector(0) / 0", "Prometheus answers with NaN"),
        ("load[5m]", "Prometheus answers with a matrix; a gate needs single samples"),
        ('"text"', "Prometheus answers with a string; a gate needs single samples"),
        ("sum(", "Prometheus refuses the query: invalid parameter"),
    ],
)
def test_what_does_not_hold_shuts(server: str, gates: PrometheusGates, query: str, says: str) -> None:
    assert said(gates, PrometheusGate("g", server, query)).startswith(says)


def test_under_another_path_it_is_not_found(server: str, gates: PrometheusGates) -> None:
    assert said(gates, PrometheusGate("g", server + "/elsewhere", "1")) == "Prometheus answers with HTTP status 404"


def test_each_gate_has_its_own_hold(server: str, gates: PrometheusGates) -> None:
    every = [PrometheusGate("good", server, "1"), PrometheusGate("bad", server, "vector(0)")]
    before = gates.holds(every)
    assert [hold.text for hold in before] == [
        "health gate “good” is shut: Prometheus has not been asked yet",
        "health gate “bad” is shut: Prometheus has not been asked yet",
    ]
    gates.refresh(every)
    (hold,) = gates.holds(every)
    assert (hold.code, hold.subject, hold.until) == (HoldCode.HEALTH_GATE, "bad", None)


def answering(status: int, body: bytes, **headers: str) -> type[BaseHTTPRequestHandler]:
    """Requests it counts; `asked`: their paths."""

    class Answer(BaseHTTPRequestHandler):
        asked: list[str] = []  # noqa: RUF012

        def do_GET(self) -> None:
            self.asked.append(self.path)
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Answer


def asked(handler: type[BaseHTTPRequestHandler]) -> list[str]:
    return handler.asked  # type: ignore[attr-defined, no-any-return]


def test_an_answer_is_kept_for_a_while_and_not_for_ever(gates: PrometheusGates, clock: Clock) -> None:
    handler = answering(200, OPEN)
    with serving(handler) as address:
        gate = PrometheusGate("g", address + "/prom", "sum(a) > 1")
        assert said(gates, gate) == said(gates, gate) == ""
        clock.now += KEPT_S - 0.1
        assert said(gates, gate) == ""
        assert asked(handler) == ["/prom/api/v1/query?query=sum%28a%29+%3E+1&timeout=5s"]
        clock.now += 0.1
        assert said(gates, gate) == ""
        assert len(asked(handler)) == 2
    clock.now += STALE_S - 0.1
    assert gates.holds([gate]) == ()
    clock.now += 0.1
    (hold,) = gates.holds([gate])
    assert hold.text.endswith("Prometheus has not answered for a minute")


def test_one_answer_serves_all_that_ask_the_same(gates: PrometheusGates) -> None:
    handler = answering(200, OPEN)
    with serving(handler) as address:
        gates.refresh([PrometheusGate("g", address, "1") for _ in range(5)])
    assert len(asked(handler)) == 1


def test_a_gate_that_is_gone_is_forgotten(gates: PrometheusGates) -> None:
    with serving(answering(200, OPEN)) as address:
        gate = PrometheusGate("g", address, "1")
        assert said(gates, gate) == ""
        gates.refresh([])
        assert "not been asked" in gates.holds([gate])[0].text


def test_a_redirect_is_not_followed(gates: PrometheusGates) -> None:
    inner = answering(200, OPEN)
    with serving(inner) as elsewhere, serving(answering(302, b"", location=elsewhere + "/api/v1/query")) as address:
        assert "redirect, which is not followed" in said(gates, PrometheusGate("g", address, "1"))
    assert asked(inner) == []


def test_an_answer_without_end_is_not_read_to_its_end(gates: PrometheusGates) -> None:
    with serving(answering(200, OPEN + b" " * (3 << 20))) as address:
        assert "more than 1 MiB" in said(gates, PrometheusGate("g", address, "1"))


def test_a_packed_answer_is_not_unpacked(gates: PrometheusGates) -> None:
    with serving(answering(200, OPEN, **{"content-encoding": "gzip"})) as address:
        assert said(gates, PrometheusGate("g", address, "1")) == ""  # it says gzip and is none: read as it came


def test_one_that_is_not_there(gates: PrometheusGates) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        assert said(gates, PrometheusGate("g", address, "1")).startswith("Prometheus cannot be reached: ")


def test_one_that_speaks_no_http(gates: PrometheusGates) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def nonsense() -> None:
            conn, _ = listening.accept()
            with conn:
                conn.recv(1000)
                conn.sendall(b"SSH-2.0-what\r\n")

        thread = threading.Thread(target=nonsense)
        thread.start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        assert said(gates, PrometheusGate("g", address, "1")).startswith("Prometheus cannot be reached: ")
        thread.join()


def test_one_that_never_answers_shuts_and_keeps_nobody_waiting(gates: PrometheusGates) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        gate = PrometheusGate("g", f"http://127.0.0.1:{silent.getsockname()[1]}", "1", timeout_s=0.2)
        assert said(gates, gate) == "Prometheus does not answer within 0.2 s"


def test_one_that_drips_shuts_at_its_time_limit(gates: PrometheusGates) -> None:
    """Each byte comes in time, the answer does not."""
    over = threading.Event()

    class Drips(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            while not over.wait(0.05):
                try:
                    self.wfile.write(b" ")
                except OSError:
                    return

        def log_message(self, *_: object) -> None:
            pass

    with serving(Drips) as address:
        gate = PrometheusGate("g", address, "1", timeout_s=0.3)
        try:
            assert said(gates, gate) == "Prometheus does not answer within 0.3 s"
        finally:
            over.set()


def test_a_slow_gate_does_not_hold_up_the_others(gates: PrometheusGates, clock: Clock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, serving(answering(200, OPEN)) as address:
        slow = PrometheusGate("slow", f"http://127.0.0.1:{silent.getsockname()[1]}", "1", timeout_s=0.2)
        fast = PrometheusGate("fast", address, "1", timeout_s=0.2)
        gates.refresh([slow, fast, replace(fast, name="other")])
        (hold,) = gates.holds([slow, fast, replace(fast, name="other")])
    assert hold.subject == "slow"
