"""Default routes of this machine and whether their gateways answer. Linux only.

Routes come from /proc/net (route, ipv6_route), neighbour states from rtnetlink(7).
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

_RTF_UP, _RTF_GATEWAY, _RTF_REJECT = 0x1, 0x2, 0x200  # linux/route.h

_PROBE_PORT = 53
"""Gateways often resolve names; one that does not refuses the connection, which is an answer as well."""

_LOOK_AGAIN_S = 0.25
"""How often the neighbour table is read while the probe is under way."""

_RTM_NEWNEIGH, _RTM_GETNEIGH, _NLMSG_ERROR, _NLMSG_DONE = 28, 30, 2, 3
_NLM_F_REQUEST_DUMP = 0x301
_NDA_DST = 1
_RECEIVE_BYTES = 256 * 1024
_NETLINK_LIMIT_S = 1.0


class Neighbour(StrEnum):
    """What the kernel knows of a neighbour on the link, as far as we care."""

    ANSWERS = "answers"
    """REACHABLE: it answered within the last half minute or so; or configured by hand."""
    SILENT = "silent"
    """FAILED: asked and not heard."""
    UNDECIDED = "undecided"
    """STALE, DELAY, PROBE, INCOMPLETE, or not in the table."""


_NEIGHBOUR_STATES = {0x02: Neighbour.ANSWERS, 0x40: Neighbour.ANSWERS, 0x80: Neighbour.ANSWERS, 0x20: Neighbour.SILENT}
"""NUD_REACHABLE, NUD_NOARP, NUD_PERMANENT, NUD_FAILED (linux/neighbour.h)."""


@dataclass(frozen=True)
class DefaultRoute:
    interface: str
    gateway: IPv4Address | IPv6Address | None
    """None on links that have only one other end."""


def default_routes(root: Path = Path("/")) -> list[DefaultRoute]:
    """Routes to everywhere that are up, IPv4 first; none where the kernel has no such table."""
    found = parse_ipv4(_table(root / "proc/net/route")) + parse_ipv6(_table(root / "proc/net/ipv6_route"))
    return list(dict.fromkeys(found))


def _table(path: Path) -> str:
    return path.read_text(encoding="ascii", errors="replace") if path.exists() else ""


def parse_ipv4(table: str) -> list[DefaultRoute]:
    """Default routes in the text of /proc/net/route; addresses there are in the machine's byte order."""
    found = []
    for line in table.splitlines()[1:]:
        match line.split():
            case [interface, "00000000", gateway, flags, _, _, _, "00000000", *_] if _usable(flags):
                address = IPv4Address(struct.pack("=I", int(gateway, 16)))
                found.append(DefaultRoute(interface, address if _has_gateway(flags) else None))
    return found


def parse_ipv6(table: str) -> list[DefaultRoute]:
    """Default routes in the text of /proc/net/ipv6_route."""
    found = []
    everywhere = "0" * 32
    for line in table.splitlines():
        match line.split():
            case [to, "00", _, _, gateway, _, _, _, flags, interface] if to == everywhere and _usable(flags):
                address = IPv6Address(bytes.fromhex(gateway))
                found.append(DefaultRoute(interface, address if _has_gateway(flags) else None))
    return found


def _usable(flags: str) -> bool:
    return int(flags, 16) & (_RTF_UP | _RTF_REJECT) == _RTF_UP


def _has_gateway(flags: str) -> bool:
    return bool(int(flags, 16) & _RTF_GATEWAY)


async def answers(route: DefaultRoute, limit_s: float, root: Path = Path("/")) -> bool:
    """Whether the other end of the route is there.

    A connection to the gateway is tried, since that makes the kernel ask for it on the link: it answers when
    the connection is accepted or refused, or when the kernel then knows the neighbour as reachable. That knowledge
    may be half a minute old. A gateway that drops our packets and whose entry was stale is found again after
    some seconds of the kernel's own probing: `limit_s` below 8 s takes such a one for silent. A link
    without gateway (point to point) counts by its carrier, which says nothing of the other end.
    """
    if route.gateway is None:
        return _has_carrier(route.interface, root)
    connecting = asyncio.create_task(_connects(str(route.gateway), route.interface))
    try:
        async with asyncio.timeout(limit_s):
            return await _first_word(route, connecting)
    except TimeoutError:
        return False
    finally:
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)


async def _first_word(route: DefaultRoute, connecting: asyncio.Task[bool | None]) -> bool:
    """What decides first: the connection, or the neighbour table while the connection waits."""
    while True:
        await asyncio.wait({connecting}, timeout=_LOOK_AGAIN_S)
        told = connecting.result() if connecting.done() else None
        if told is not None:
            return told
        known = neighbour(str(route.gateway))
        if known is not Neighbour.UNDECIDED:
            return known is Neighbour.ANSWERS
        if connecting.done():
            await asyncio.sleep(_LOOK_AGAIN_S)


async def _connects(address: str, interface: str) -> bool | None:
    """True: accepted or refused; False: not on the link; None: that way cannot tell."""
    scoped = f"{address}%{interface}" if address.startswith("fe80:") else address
    try:
        _, writer = await asyncio.open_connection(scoped, _PROBE_PORT)
    except OSError as error:
        return connection_says(error)
    writer.transport.abort()
    return True


def connection_says(error: OSError) -> bool | None:
    """What a failed connection tells of the host itself."""
    if error.errno in (errno.ECONNREFUSED, errno.ECONNRESET):
        return True
    if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN):
        return False
    return None


def _has_carrier(interface: str, root: Path) -> bool:
    state = root / "sys/class/net" / interface / "operstate"
    # Links that have no carrier to speak of (ppp, tun) say unknown.
    return state.exists() and state.read_text(encoding="ascii").strip() in ("up", "unknown")


def neighbour(address: str) -> Neighbour:
    """State of `address` in the kernel's neighbour tables; undecided where they cannot be read."""
    header = struct.pack("=IHHII", 28, _RTM_GETNEIGH, _NLM_F_REQUEST_DUMP, 1, 0)
    wanted = ip_address(address).packed
    family = socket.AF_INET if len(wanted) == 4 else socket.AF_INET6
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
            netlink.settimeout(_NETLINK_LIMIT_S)
            netlink.send(header + struct.pack("=BxxxiHBB", family, 0, 0, 0, 0))
            states: list[int] = []
            while not collect_states(netlink.recv(_RECEIVE_BYTES), wanted, states):
                pass
    except OSError:
        return Neighbour.UNDECIDED  # containers may not have netlink; the connection still tells
    found = {_NEIGHBOUR_STATES.get(state, Neighbour.UNDECIDED) for state in states}
    # The same link-local address may be on several links: one that answers is enough.
    return next((each for each in Neighbour if each in found), Neighbour.UNDECIDED)


def collect_states(reply: bytes, wanted: bytes, states: list[int]) -> bool:
    """Add the states of `wanted` in one reply of a dump; True when the dump is over (rtnetlink(7))."""
    offset = 0
    while offset + 16 <= len(reply):
        length, kind = struct.unpack_from("=IH", reply, offset)
        if kind in (_NLMSG_DONE, _NLMSG_ERROR) or length < 16:
            return True
        if kind == _RTM_NEWNEIGH and length >= 28:
            (state,) = struct.unpack_from("=H", reply, offset + 24)
            if wanted in _attributes(reply[offset + 28 : offset + length], _NDA_DST):
                states.append(state)
        offset += (length + 3) & ~3
    return not reply


def _attributes(raw: bytes, wanted_kind: int) -> list[bytes]:
    found = []
    offset = 0
    while offset + 4 <= len(raw):
        length, kind = struct.unpack_from("=HH", raw, offset)
        if length < 4:
            break
        if kind == wanted_kind:
            found.append(raw[offset + 4 : offset + length])
        offset += (length + 3) & ~3
    return found
