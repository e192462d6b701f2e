"""Mirrors before the image's own address: any failure falls through, resuming works across them, the digest decides."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.download import DownloadCode, DownloadError, Supply, download
from tests.agent.image_server import Answer, ImageServer, status
from wire.messages import Image

CONTENT = bytes(range(256)) * 2048 + b"end"
HEX = hashlib.sha256(CONTENT).hexdigest()


class Place:
    """Three servers: two mirrors and where the image's own address leads."""

    def __init__(self, servers: list[ImageServer], into: Path) -> None:
        self.first, self.second, self.origin = servers
        self.into = into
        self.wrong: list[str] = []

    @property
    def mirrors(self) -> list[str]:
        return [f"http://127.0.0.1:{server.port}/images/" for server in (self.first, self.second)]

    def fetch(self, *, url: str | None = None, bandwidth_bytes_s: int = 0, **more: object) -> None:
        own = self.origin.url if url is None else url
        image = Image(os="demo", arch="amd64", version="2", digest=f"sha256:{HEX}", size=len(CONTENT), url=own)
        asked = Supply(self.mirrors, bandwidth_bytes_s, self.wrong.append)
        asyncio.run(download(image, self.into, lambda share: None, asked, **more))  # type: ignore[arg-type]

    def asked(self) -> list[int]:
        return [len(server.requests) for server in (self.first, self.second, self.origin)]

    def complete(self) -> bool:
        return self.into.read_bytes() == CONTENT and not self.into.with_name("image.part.source").exists()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        servers = [stack.enter_context(ImageServer(CONTENT, etag=f'"{name}"')) for name in ("one", "two", "own")]
        yield Place(servers, tmp_path / "image.part")


def test_the_first_mirror_serves_and_nobody_else_is_asked(place: Place) -> None:
    place.fetch()
    assert place.complete() and place.asked() == [1, 0, 0]
    assert place.first.requests[0][0] == f"/images/{HEX}"


@pytest.mark.parametrize("answer", [status(404), status(403), status(500), status(302, Location="https://x.invalid/")])
def test_a_mirror_that_does_not_have_it_is_passed_over(place: Place, answer: Answer) -> None:
    place.first.answers = [answer]
    place.fetch()
    assert place.complete() and place.asked() == [1, 1, 0] and place.wrong == []


def test_dead_mirrors_lead_to_the_own_address(place: Place) -> None:
    place.first.close()
    place.second.answers = [status(404)]
    place.fetch()
    assert place.complete() and place.asked() == [0, 1, 1]


def test_a_silent_mirror_is_passed_over(place: Place) -> None:
    place.first.answers = [place.first.hang_after(None)]
    place.second.answers = [place.second.hang_after(7)]
    place.fetch(stall_timeout_s=0.2)
    assert place.complete() and place.asked() == [1, 1, 1]


def test_wrong_bytes_name_the_mirror_and_leave_nothing_of_them(place: Place) -> None:
    place.first.content = b"x" * len(CONTENT)
    place.fetch()
    assert place.complete() and place.wrong == [place.mirrors[0]] and place.asked() == [1, 1, 0]
    assert place.second.requests[0][1] is None, "begun anew"


def test_what_one_began_the_next_goes_on_with(place: Place) -> None:
    place.first.answers = [place.first.cut_after(200_000)]
    place.fetch()
    assert place.complete() and place.asked() == [1, 1, 0]
    _, wanted, condition = place.second.requests[0]
    assert wanted == "bytes=200000-" and condition is None, "an ETag is that of one server"


def test_a_wrong_beginning_is_fetched_again_from_the_one_that_had_the_end(place: Place) -> None:
    place.first.content = b"x" * len(CONTENT)
    place.first.answers = [place.first.cut_after(200_000)]
    place.fetch()
    assert place.complete() and place.wrong == []
    assert [wanted for _, wanted, _ in place.second.requests] == ["bytes=200000-", None]


def test_a_later_try_goes_on_where_the_last_source_stopped(place: Place) -> None:
    place.first.answers, place.second.answers = [status(404)] * 2, [status(404)] * 2
    place.origin.answers = [place.origin.cut_after(150_000)]
    with pytest.raises(DownloadError) as failure:
        place.fetch(url=place.origin.url + "?until=1")
    assert failure.value.code == DownloadCode.TRUNCATED and failure.value.transient
    place.fetch(url=place.origin.url + "?until=2")
    assert place.complete()
    assert place.origin.requests[1] == ("/image?until=2", "bytes=150000-", '"own"')


def test_when_all_fail_the_last_one_speaks_and_names_the_others(place: Place) -> None:
    place.first.close()
    place.second.answers = [status(404)]
    place.origin.answers = [status(403)]
    with pytest.raises(DownloadError) as failure:
        place.fetch()
    error = failure.value
    assert (error.code, error.status) == (DownloadCode.HTTP, 403)
    assert f"127.0.0.1:{place.first.port}: no connection" in error.text and "404" in error.text
    assert error.transient, "the mirror may be back later"


def test_mirrors_alone_may_do(place: Place) -> None:
    place.first.answers = [status(404)]
    place.fetch(url="")
    assert place.complete()


def test_a_mirror_in_the_clear_beyond_loopback_is_passed_over(tmp_path: Path) -> None:
    with ImageServer(CONTENT) as server:
        digest = f"sha256:{HEX}"
        image = Image(os="demo", arch="amd64", version="2", digest=digest, size=len(CONTENT), url=server.url)
        supply = Supply(["http://192.0.2.1/images", "ftp://x/"])
        asyncio.run(download(image, tmp_path / "image", lambda share: None, supply))
        assert len(server.requests) == 1


def test_a_folder_that_is_not_there_is_no_mirrors_fault(place: Place) -> None:
    place.into = place.into.parent / "none" / "image"
    with pytest.raises(DownloadError) as failure:
        place.fetch()
    assert failure.value.code == DownloadCode.DISK and sum(place.asked()) == 0


def test_the_cap_holds(place: Place) -> None:
    began = time.monotonic()
    place.fetch(bandwidth_bytes_s=len(CONTENT))
    took = time.monotonic() - began
    assert place.complete() and took >= 0.7, "a second less the burst"


def test_cancelling_does_not_wait_for_the_cap(place: Place) -> None:
    async def scene() -> None:
        image = Image(os="d", arch="a", version="2", digest=f"sha256:{HEX}", size=len(CONTENT), url=place.origin.url)
        work = asyncio.ensure_future(download(image, place.into, lambda share: None, Supply((), 10)))
        while not (place.into.exists() and place.into.stat().st_size):
            await asyncio.sleep(0.01)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(work, 5)

    asyncio.run(scene())


def test_nobody_listens_anywhere(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dead = f"http://127.0.0.1:{listener.getsockname()[1]}"
    image = Image(os="d", arch="a", version="2", digest=f"sha256:{HEX}", size=len(CONTENT), url=f"{dead}/image")
    with pytest.raises(DownloadError) as failure:
        asyncio.run(download(image, tmp_path / "image", lambda share: None, Supply([dead])))
    assert failure.value.code == DownloadCode.NO_CONNECTION and failure.value.transient
