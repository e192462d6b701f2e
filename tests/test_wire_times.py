"""docs/wire.md tells what gateway and agent really do: their times, limits, and what follows a close code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent import link
from app.gateway.limits import Limits
from wire import limits
from wire.close import FINAL, CloseCode
from wire.messages import MAX_FRAME_BYTES, MAX_PARTS, MAX_WHOLE_BYTES

PAGE = (Path(__file__).parents[1] / "docs" / "wire.md").read_text()
GATEWAY = Limits()


def table(heading: str) -> dict[str, str]:
    """First column -> last column of the first table under a heading."""
    found = re.search(rf"^#+ {heading}\n(.*?)(?=^#|\Z)", PAGE, re.S | re.M)
    assert found, heading
    rows = [line.strip("| ").split(" | ") for line in found[1].splitlines() if line.startswith("| ")]
    return {row[0]: row[-1] for row in rows}


def numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?:\.\d+)?", text)]


TIMES = {
    "the gateway closes an opening": [GATEWAY.opening_s],
    "the node gives up an opening": [link.WELCOME_LIMIT_S],
    "`heartbeat_s`": [GATEWAY.heartbeat_s],
    "the gateway closes a connection on which": [float(GATEWAY.missed_heartbeats)],
    "the node pings": [link.PING_S, link.PING_S],
    "changes of a node's state": [link.COALESCE_S],
    "a fresh `url`": [GATEWAY.url_refresh_s],
    "a node that has another pin": [link.COME_BACK_S],
    "pause after `1012`": [link.RESTART_JITTER_S],
    "pause while backing off": [link.BACKOFF_FIRST_S, link.BACKOFF_MOST_S],
    "pause after a code": [link.FINAL_PAUSE_S / 2, link.FINAL_PAUSE_S],
}


def test_the_times_are_those_of_the_code() -> None:
    told = {what: numbers(when) for what, when in table("Times").items() if what != "what"}
    found = {begin: values for begin in TIMES for what, values in told.items() if what.startswith(begin)}
    assert found == TIMES
    assert len(told) == len(TIMES)


def test_a_connection_settles_when_the_page_says() -> None:
    assert f"held for {link.SETTLED_S:.0f} s makes the next pause a first one" in PAGE


LIMITS = {
    "names, versions": [limits.NAME_CHARS],
    "reference of a container's image": [limits.IMAGE_REFERENCE_CHARS],
    "texts and reasons": [limits.TEXT_CHARS],
    "output of a check": [limits.OUTPUT_CHARS],
    "label keys": [128],
    "labels · slots": [limits.LABELS, limits.SLOTS, limits.CHECKS, limits.REASONS],
    "containers · failed": [limits.CONTAINERS, limits.FAILED_VERSIONS],
}


def test_the_limits_are_those_of_the_code() -> None:
    told = {what: numbers(limit) for what, limit in table("Frames").items()}
    for begin, values in LIMITS.items():
        [found] = [limit for what, limit in told.items() if what.startswith(begin)]
        assert found[: len(values)] == values
    for number in (MAX_FRAME_BYTES, MAX_PARTS):
        assert f"{number:,}" in PAGE
    assert f"{MAX_WHOLE_BYTES // 1024**2} MiB" in PAGE


@pytest.mark.parametrize("code", sorted(CloseCode))
def test_the_agent_does_after_a_close_what_the_page_says(code: CloseCode) -> None:
    told = table("Close codes")[str(code.value)]
    longest = link.pause(code, tries=50, chance=1.0)
    if code is CloseCode.JOIN_REFUSED:
        assert told.startswith("the join command ends")
    elif code in FINAL:
        assert told.startswith("tries about once an hour")
        assert longest == link.FINAL_PAUSE_S
    elif code is CloseCode.RESTART:
        assert told.startswith("comes back with full jitter")
        assert longest == link.RESTART_JITTER_S
    else:
        assert told.startswith("backs off")
        assert longest == link.BACKOFF_MOST_S


def test_a_quiet_node_is_never_silent() -> None:
    """Pings are not heard, so heartbeats alone must be enough, with one of them lost on a slow line."""
    assert (GATEWAY.missed_heartbeats - 1) * GATEWAY.heartbeat_s > GATEWAY.heartbeat_s + link.COALESCE_S
    assert GATEWAY.opening_s < link.WELCOME_LIMIT_S, "the gateway's close code arrives before the node gives up"
