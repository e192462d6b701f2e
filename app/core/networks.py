"""Which addresses a join token may be used from. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from app.core.errors import Invalid


def parse_networks(texts: Iterable[str]) -> tuple[str, ...]:
    """Networks in their usual spelling (`10.0.0.0/8`, `2001:db8::/32`); a bare address stands for itself.

    Invalid names the first that is none; host bits that are set are refused, for they hide a mistake.
    """
    return tuple(dict.fromkeys(_network(text.strip()) for text in texts if text.strip()))


def allows(networks: Iterable[str], remote: str) -> bool:
    """Whether `remote` (an address, with or without a port) lies in one of `networks`; no networks: anywhere."""
    wanted = tuple(networks)
    if not wanted:
        return True
    address = _address(remote)
    return address is not None and any(address in ip_network(network) for network in wanted)


def _network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError as error:
        raise Invalid("networks", f"“{text}” is no network such as 10.0.0.0/8 or 2001:db8::/32.") from error


def _address(remote: str) -> IPv4Address | IPv6Address | None:
    host = remote
    if remote.startswith("["):
        host = remote[1:].partition("]")[0]
    elif remote.count(":") == 1:
        host = remote.partition(":")[0]
    try:
        address = ip_address(host.partition("%")[0])  # %: the zone of a link-local address
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None  # how a dual-stack socket sees IPv4
    return mapped or address
