"""Witnesses on loopback: servers that answer, refuse, hang and talk nonsense."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.witnesses import WitnessConfig, probe, still_standing

ROUTE_TO_LOOPBACK = (
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    "lo\t00000000\t6300007F\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
)


def root_with(tmp_path: Path, table: str) -> Path:
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "proc/net/route").write_text(table)
    return tmp_path


@asynccontextmanager
async def server(says: bytes | None) -> AsyncIterator[int]:
    """A server on loopback that says this and closes, or says nothing at all; its port."""
    open_now: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_now[asyncio.current_task()] = writer
        try:
            await reader.readuntil(b"\r\n\r\n" if says is not None else b"never")
        except asyncio.IncompleteReadError:
            return  # the client gave up, or this server ends
        writer.write(says or b"")
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        for writer in open_now.values():
            writer.transport.abort()
        await asyncio.gather(*(task for task in open_now if task is not None))
        listening.close()
        await listening.wait_closed()


def probed(says: bytes | None, timeout_s: float = 10.0, url: str = "http://127.0.0.1:{port}/ok?a=b") -> bool:
    async def scenario() -> bool:
        async with server(says) as port:
            target = url.format(port=port)
            found = await probe(WitnessConfig(default_route=False, urls=(target,), timeout_s=timeout_s))
            assert set(found) == {f"url:{target}"}
            return found[f"url:{target}"]

    return asyncio.run(scenario())


@pytest.mark.parametrize("status", [b"200 OK", b"302 Found", b"404 Not Found", b"503 Away"])
def test_any_http_answer_counts(status: bytes) -> None:
    assert probed(b"HTTP/1.1 " + status + b"\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize("says", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"\xff" * 100])
def test_what_is_not_http_does_not(says: bytes) -> None:
    assert not probed(says)


def test_tls_that_is_none_is_no_answer() -> None:
    assert not probed(b"HTTP/1.1 200 OK\r\n\r\n", timeout_s=0.5, url="https://127.0.0.1:{port}/")


def test_a_url_that_hangs_is_left_in_time() -> None:
    began = time.monotonic()
    assert not probed(None, timeout_s=0.2)
    assert time.monotonic() - began < 5


def test_a_refused_url_does_not_answer() -> None:
    async def scenario() -> None:
        async with server(b"") as port:
            pass
        url = f"http://127.0.0.1:{port}/"
        assert await probe(WitnessConfig(default_route=False, urls=(url,))) == {f"url:{url}": False}

    asyncio.run(scenario())


def test_names_and_the_default_route(tmp_path: Path) -> None:
    names = ("localhost", "name with spaces", "x" * 300)
    config = WitnessConfig(dns_names=names, root=root_with(tmp_path, ROUTE_TO_LOOPBACK))
    assert asyncio.run(probe(config)) == {
        "route": True,
        "dns:localhost": True,
        "dns:name with spaces": False,
        f"dns:{names[2]}": False,
    }


def test_without_a_default_route_there_is_no_such_witness_to_stand(tmp_path: Path) -> None:
    config = WitnessConfig(root=root_with(tmp_path, ROUTE_TO_LOOPBACK.splitlines()[0]))
    assert asyncio.run(probe(config)) == {"route": False}


def test_no_witnesses_at_all() -> None:
    assert asyncio.run(probe(WitnessConfig(default_route=False))) == {}


@pytest.mark.parametrize("url", ["ftp://x/", "example.org", "http://", "http://x:port/"])
def test_a_url_that_cannot_be_asked_stops_the_start(url: str) -> None:
    with pytest.raises(ValueError, match=r"witness URL|Port"):
        WitnessConfig(urls=(url,))


STANDING = [
    ({}, {"route": True}, False),
    ({"route": False}, {"route": True}, False),
    ({"route": True}, {"route": True}, True),
    ({"route": True}, {"route": False}, False),
    ({"route": True}, {}, False),
    ({"dns:a": True, "dns:b": False}, {"dns:a": False, "dns:b": True}, True),
    ({"route": True, "dns:a": True}, {"route": True, "dns:a": False}, False),
    ({"route": True, "url:http://a": False}, {"route": True, "url:http://a": False}, True),
    ({"url:http://a": True, "url:http://b": True}, {"url:http://a": False, "url:http://b": True}, True),
]


@pytest.mark.parametrize(("before", "now", "expected"), STANDING)
def test_still_standing(before: dict[str, bool], now: dict[str, bool], expected: bool) -> None:
    assert still_standing(before, now) is expected


WITNESSES = st.dictionaries(st.sampled_from(["route", "dns:a", "dns:b", "url:x", "url:y"]), st.booleans())


@given(WITNESSES)
def test_what_stood_before_stands_now_if_any_answered(before: dict[str, bool]) -> None:
    assert still_standing(before, before) is any(before.values())


@given(WITNESSES, WITNESSES, st.sampled_from(["route", "dns:a", "url:x"]))
def test_one_more_answer_now_never_takes_it_away(before: dict[str, bool], now: dict[str, bool], name: str) -> None:
    if still_standing(before, now):
        assert still_standing(before, {**now, name: True})
