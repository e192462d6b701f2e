"""The pure part of reading an engine: states, policies, times, events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.runtimes.docker_shapes import (
    Event,
    Listed,
    changes_placement,
    parse_inspect,
    parse_time,
    placed,
    should_run,
)
from tests.agent.runtimes.fake_engine import container

NOW = 1790000005.0


def inspected(policy: str = "no", state: str = "exited", **fields: Any) -> Any:
    return parse_inspect(json.dumps(container("a1", "x", state=state, policy=policy, **fields)["inspect"]).encode())


SHOULD_RUN = [
    ("no", {"ExitCode": 1}, False),
    ("", {"ExitCode": 1}, False),
    ("always", {}, True),
    ("always", {"ExitCode": 143}, True),
    ("unless-stopped", {}, False),
    ("unless-stopped", {"ExitCode": 143}, False),
    ("unless-stopped", {"ExitCode": 1}, True),
    ("unless-stopped", {"ExitCode": 137, "OOMKilled": True}, True),
    ("unless-stopped", {"Error": "no space left on device"}, True),
    ("on-failure", {}, False),
    ("on-failure", {"ExitCode": 1}, True),
]


@pytest.mark.parametrize(("policy", "fields", "expected"), SHOULD_RUN)
def test_whether_an_exited_container_should_run(policy: str, fields: dict[str, Any], expected: bool) -> None:
    assert should_run("exited", inspected(policy, **fields)) is expected
    assert should_run("dead", inspected(policy, **fields)) is expected


def test_only_created_is_no_failure() -> None:
    assert not should_run("created", inspected("always", "created"))
    assert should_run("created", inspected("always", "created", Error="no such file"))


@pytest.mark.parametrize(
    ("state", "restarts", "now", "expected"),
    [
        ("running", 3, NOW, "restarting"),
        ("running", 2, NOW, "running"),
        ("running", 3, NOW + 60, "running"),
        ("running", 3, NOW - 60, "running"),  # the clock was set back
        ("stopping", 0, NOW, "running"),
    ],
)
def test_running_or_looping(state: str, restarts: int, now: float, expected: str) -> None:
    found = placed(Listed(id="a1", state=state), inspected(state="running", RestartCount=restarts), now)
    assert found is not None
    assert found.state == expected


@pytest.mark.parametrize("state", ["exited", "stopped", "created", "configured", "removing", "something new"])
def test_what_neither_runs_nor_should_is_not_placed(state: str) -> None:
    assert placed(Listed(id="a1", state=state), inspected(state=state), NOW) is None


def test_the_own_name_is_not_a_link() -> None:
    assert Listed(id="a1", state="running", names=["/web/db", "/db"]).name == "db"
    assert Listed(id="0123456789abcdef", state="running").name == "0123456789ab"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-09-21T14:13:20.123456789Z", 1790000000.123456),
        ("2026-09-21T16:13:20+02:00", 1790000000.0),
        ("2026-09-21T14:13:20", 1790000000.0),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
        ("yesterday", None),
    ],
)
def test_times(text: str, seconds: float | None) -> None:
    assert parse_time(text) == (None if seconds is None else pytest.approx(seconds, abs=1e-5))


@pytest.mark.parametrize(
    ("kind", "action", "expected"),
    [
        ("container", "start", True),
        ("container", "die", True),
        ("container", "health_status: healthy", True),
        ("container", "exec_died", True),
        ("container", "exec_die", False),
        ("container", "exec_create: sh -c true", False),
        ("container", "attach", False),
        ("image", "pull", False),
    ],
)
def test_which_events_matter(kind: str, action: str, expected: bool) -> None:
    assert changes_placement(Event(type=kind, action=action)) is expected
