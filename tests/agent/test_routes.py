"""Default routes from the kernel's tables, and what counts as an answer."""

from __future__ import annotations

import asyncio
import errno
import struct
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest

from agent import routes
from agent.routes import DefaultRoute, Neighbour

pytestmark = pytest.mark.skipif(
    sys.byteorder != "little", reason="the tables below are those of a little-endian machine"
)

IPV4 = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100007F\t0003\t0\t0\t100\t00000000\t0\t0\t0
ppp0\t00000000\t00000000\t0001\t0\t0\t200\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth1\t00000000\t0100000A\t0002\t0\t0\t0\t00000000\t0\t0\t0
eth2\t00000000\t0100000A\t0203\t0\t0\t0\t00000000\t0\t0\t0
eth3\t00000000\t0100000A\t0003\t0\t0\t0\t00000080\t0\t0\t0
"""
IPV6 = """\
fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000002 00000000 00000003     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
"""  # noqa: E501


def test_tables() -> None:
    assert routes.parse_ipv4(IPV4) == [
        DefaultRoute("eth0", ip_address("127.0.0.1")),
        DefaultRoute("ppp0", None),
    ]
    assert routes.parse_ipv6(IPV6) == [DefaultRoute("eth0", ip_address("fe80::1"))]


@pytest.mark.parametrize("table", ["", "Iface\n", "\n\n", "no columns at all\n"])
def test_tables_without_a_default_route(table: str) -> None:
    assert routes.parse_ipv4(table) == []
    assert routes.parse_ipv6(table) == []


def test_a_kernel_without_tables_has_no_routes(tmp_path: Path) -> None:
    assert routes.default_routes(tmp_path) == []


def test_a_gateway_that_refuses_the_connection_answers() -> None:
    """The loopback host refuses: nothing of this machine listens on port 53 of that address."""
    route = DefaultRoute("lo", ip_address("127.0.0.99"))
    assert asyncio.run(routes.answers(route, 10))


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (errno.ECONNREFUSED, True),
        (errno.ECONNRESET, True),
        (errno.EHOSTUNREACH, False),
        (errno.ENETUNREACH, False),
        (errno.EACCES, None),
        (errno.ETIMEDOUT, None),
    ],
)
def test_what_a_failed_connection_tells(code: int, told: bool | None) -> None:
    assert routes.connection_says(OSError(code, "x")) is told


@pytest.mark.parametrize(("state", "expected"), [("up\n", True), ("unknown\n", True), ("down\n", False), (None, False)])
def test_a_link_without_gateway_counts_by_its_carrier(state: str | None, expected: bool, tmp_path: Path) -> None:
    if state is not None:
        (tmp_path / "sys/class/net/ppp0").mkdir(parents=True)
        (tmp_path / "sys/class/net/ppp0/operstate").write_text(state)
    assert asyncio.run(routes.answers(DefaultRoute("ppp0", None), 10, tmp_path)) is expected


def neighbour_message(address: str, state: int, kind: int = 28) -> bytes:
    packed = ip_address(address).packed
    padded = struct.pack("=HH", 4 + len(packed), 1) + packed
    body = struct.pack("=BxxxiHBB", 2, 3, state, 0, 1) + padded
    return struct.pack("=IHHII", 16 + len(body), kind, 2, 1, 0) + body


def test_neighbour_replies() -> None:
    wanted = ip_address("192.0.2.1").packed
    found: list[int] = []
    first = neighbour_message("192.0.2.7", 0x20) + neighbour_message("192.0.2.1", 0x02)
    assert not routes.collect_states(first, wanted, found)
    assert found == [0x02]
    done = struct.pack("=IHHII", 16, 3, 2, 1, 0)
    assert routes.collect_states(done, wanted, found)
    assert routes.collect_states(b"", wanted, found)
    assert routes.collect_states(struct.pack("=IHHII", 0, 28, 0, 0, 0), wanted, found)
    assert found == [0x02]


def test_this_machine_s_table_can_be_asked() -> None:
    """An address of documentation (RFC 5737) is nobody's neighbour; the dump itself must come to its end."""
    assert routes.neighbour("203.0.113.199") is Neighbour.UNDECIDED
    assert routes.neighbour("2001:db8::199") is Neighbour.UNDECIDED
