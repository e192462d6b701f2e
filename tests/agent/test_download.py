from __future__ import annotations

import asyncio
import hashlib
import resource
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from agent.download import DownloadCode, DownloadError, download
from tests.agent.image_server import ImageServer, status
from wire.messages import Image

CONTENT = bytes(range(256)) * 4096 + b"end"


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with ImageServer(CONTENT) as running:
        yield running


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "image.part"


def image(url: str, content: bytes = CONTENT) -> Image:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return Image(os="demo", arch="amd64", version="2", digest=digest, size=len(content), url=url)


def fetch(wanted: Image, into: Path, **more: object) -> list[float]:
    shares: list[float] = []
    asyncio.run(download(wanted, into, shares.append, **more))  # type: ignore[arg-type]
    return shares


def fails(wanted: Image, into: Path, **more: object) -> DownloadError:
    with pytest.raises(DownloadError) as failure:
        fetch(wanted, into, **more)
    assert failure.value.text
    return failure.value


def is_complete(into: Path) -> bool:
    return into.read_bytes() == CONTENT and not into.with_name("image.part.source").exists()


def test_a_whole_download(server: ImageServer, into: Path) -> None:
    shares = fetch(image(server.url), into)
    assert is_complete(into)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert server.requests == [("/image", None, None)]


def test_what_is_complete_costs_no_request(server: ImageServer, into: Path) -> None:
    into.write_bytes(CONTENT)
    fetch(image(server.url), into)
    assert server.requests == []


def test_an_empty_image(into: Path) -> None:
    with ImageServer(b"") as server:
        fetch(image(server.url, b""), into)
    assert into.read_bytes() == b""


def test_a_cut_download_is_resumed(server: ImageServer, into: Path) -> None:
    server.answers = [server.cut_after(700_001)]
    failure = fails(image(server.url), into)
    assert (failure.code, failure.transient) == (DownloadCode.TRUNCATED, True)
    assert into.stat().st_size == 700_001
    shares = fetch(image(server.url), into)
    assert is_complete(into)
    assert min(shares) > 0.6
    assert server.requests[1] == ("/image", "bytes=700001-", '"one"')


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_resuming_without_a_strong_etag(server: ImageServer, into: Path, etag: str) -> None:
    server.etag = etag
    server.answers = [server.cut_after(10_000)]
    fails(image(server.url), into)
    fetch(image(server.url), into)
    assert is_complete(into)
    assert server.requests[1] == ("/image", "bytes=10000-", None)


def test_a_server_that_ignores_range(server: ImageServer, into: Path) -> None:
    server.answers = [server.cut_after(10_000), server.ignoring_range]
    fails(image(server.url), into)
    fetch(image(server.url), into)
    assert is_complete(into)


def test_the_file_changed_on_the_server_meanwhile(server: ImageServer, into: Path) -> None:
    server.answers = [server.cut_after(10_000)]
    fails(image(server.url), into)
    server.etag = '"two"'
    fetch(image(server.url), into)
    assert is_complete(into)


def test_a_beginning_that_was_damaged_is_fetched_again(server: ImageServer, into: Path) -> None:
    server.answers = [server.cut_after(10_000)]
    fails(image(server.url), into)
    into.write_bytes(b"x" * 10_000)
    fetch(image(server.url), into)
    assert is_complete(into)
    assert [asked for _, asked, _ in server.requests] == [None, "bytes=10000-", None]


def test_a_beginning_of_another_image_is_not_resumed(server: ImageServer, into: Path) -> None:
    into.write_bytes(b"something else")
    fetch(image(server.url), into)
    assert is_complete(into)
    assert server.requests == [("/image", None, None)]


@pytest.mark.parametrize("size", [len(CONTENT), len(CONTENT) + 5])
def test_a_foreign_file_in_the_way_is_replaced(server: ImageServer, into: Path, size: int) -> None:
    into.write_bytes(bytes(size))
    fetch(image(server.url), into)
    assert is_complete(into)


def test_a_range_that_the_server_does_not_have(server: ImageServer, into: Path) -> None:
    server.answers = [server.cut_after(10_000), status(416)]
    fails(image(server.url), into)
    fetch(image(server.url), into)
    assert is_complete(into)


def test_a_part_that_was_not_asked_for(server: ImageServer, into: Path) -> None:
    server.answers = [status(206, **{"Content-Range": "bytes 5-9/10"})] * 2
    assert fails(image(server.url), into).code is DownloadCode.HTTP


def test_a_wrong_digest_removes_the_file(server: ImageServer, into: Path) -> None:
    wanted = msgspec.structs.replace(image(server.url), digest="sha256:" + "0" * 64)
    failure = fails(wanted, into)
    assert (failure.code, failure.transient) == (DownloadCode.WRONG_DIGEST, False)
    assert list(into.parent.iterdir()) == []


def test_more_than_the_size_is_cut_off(into: Path) -> None:
    with ImageServer(CONTENT + b"more" * 1_000_000) as server:
        fetch(image(server.url), into)
    assert is_complete(into)


@pytest.mark.parametrize("digest", ["", "sha256:", "md5:" + "0" * 32, "sha256:" + "A" * 64])
def test_a_digest_that_is_none(server: ImageServer, into: Path, digest: str) -> None:
    wanted = msgspec.structs.replace(image(server.url), digest=digest)
    assert fails(wanted, into).code is DownloadCode.WRONG_DIGEST
    assert server.requests == []


@pytest.mark.parametrize(("code", "transient"), [(403, False), (404, False), (429, True), (500, True), (503, True)])
def test_an_error_status(server: ImageServer, into: Path, code: int, transient: bool) -> None:
    server.answers = [status(code)]
    failure = fails(image(server.url), into)
    assert (failure.code, failure.status, failure.transient) == (DownloadCode.HTTP, code, transient)
    assert str(code) in failure.text


def test_redirects_are_followed(server: ImageServer, into: Path) -> None:
    server.answers = [status(302, Location="/other"), status(307, Location=f"{server.url}?x=1")]
    fetch(image(server.url), into)
    assert is_complete(into)
    assert [path for path, _, _ in server.requests] == ["/image", "/other", "/image?x=1"]


def test_redirects_end(server: ImageServer, into: Path) -> None:
    server.answers = [status(302, Location="/image")] * 6
    assert "5 redirects" in fails(image(server.url), into).text
    assert len(server.requests) == 6


def test_a_redirect_to_another_scheme(server: ImageServer, into: Path) -> None:
    server.answers = [status(302, Location="https://127.0.0.1:1/")]
    assert fails(image(server.url), into).code is DownloadCode.BAD_URL


@pytest.mark.parametrize(
    "url",
    ["", "image", "ftp://127.0.0.1/x", "http://", "http://[::1", "http://127.0.0.1:99999/", "http://u:p@127.0.0.1/",
     "http://127.0.0.1/a b", "http://127.0.0.1/\r\nX: y", "http://127.0.0.1/ä", "http://192.0.2.1/plain"],
)  # fmt: skip
def test_a_bad_url(into: Path, url: str) -> None:
    failure = fails(image(url), into)
    assert (failure.code, failure.transient) == (DownloadCode.BAD_URL, False)


def test_a_host_name_that_cannot_be_one(into: Path) -> None:
    assert fails(image(f"http://{'a' * 70}.test/"), into, allow_unencrypted=True).code is DownloadCode.BAD_URL


def test_nobody_listens(into: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    failure = fails(image(f"http://127.0.0.1:{port}/"), into)
    assert (failure.code, failure.transient) == (DownloadCode.NO_CONNECTION, True)


@contextmanager
def deaf_port() -> Iterator[int]:
    """A port whose queue is full: connecting to it takes for ever."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        callers = []
        try:
            for _ in range(4):
                caller = socket.socket()
                caller.setblocking(False)
                caller.connect_ex(listener.getsockname())
                callers.append(caller)
            yield listener.getsockname()[1]
        finally:
            for caller in callers:
                caller.close()


def test_connecting_has_a_limit(into: Path) -> None:
    with deaf_port() as port:
        failure = fails(image(f"http://127.0.0.1:{port}/"), into, connect_timeout_s=0.2)
    assert (failure.code, failure.transient) == (DownloadCode.NO_CONNECTION, True)


@pytest.mark.parametrize("count", [None, 0, 5000])
def test_a_silent_server(server: ImageServer, into: Path, count: int | None) -> None:
    server.answers = [server.hang_after(count)]
    failure = fails(image(server.url), into, stall_timeout_s=0.3)
    assert (failure.code, failure.transient) == (DownloadCode.STALLED, True)
    fetch(image(server.url), into)
    assert is_complete(into)


def test_something_else_than_http(into: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            caller, _ = listener.accept()
            with caller:
                caller.sendall(b"SSH-2.0-hello\r\n")

        greeter = threading.Thread(target=greet)
        greeter.start()
        failure = fails(image(f"http://127.0.0.1:{listener.getsockname()[1]}/"), into)
        greeter.join()
    assert failure.code is DownloadCode.NO_CONNECTION


def test_too_little_space_is_known_before_the_first_byte(server: ImageServer, into: Path) -> None:
    wanted = msgspec.structs.replace(image(server.url), size=1 << 60)
    failure = fails(wanted, into)
    assert (failure.code, failure.transient) == (DownloadCode.NO_SPACE, False)
    assert server.requests == []


def test_a_disk_that_fills_up_on_the_way(server: ImageServer, into: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        failure = fails(image(server.url), into)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert failure.code is DownloadCode.NO_SPACE
    fetch(image(server.url), into)
    assert is_complete(into)


def test_a_folder_that_is_not_there(server: ImageServer, tmp_path: Path) -> None:
    assert fails(image(server.url), tmp_path / "none" / "x").code is DownloadCode.DISK


@pytest.mark.parametrize("count", [None, 5000])
def test_cancelling_stops_at_once_and_keeps_the_beginning(server: ImageServer, into: Path, count: int | None) -> None:
    server.answers = [server.hang_after(count)]

    async def scene() -> None:
        work = asyncio.ensure_future(download(image(server.url), into, lambda share: None))
        while not server.requests or (count and not (into.exists() and into.stat().st_size)):
            await asyncio.sleep(0.01)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(work, 5)

    asyncio.run(scene())
    fetch(image(server.url), into)
    assert is_complete(into)
    assert server.requests[1][1] == (f"bytes={count}-" if count else None)


def test_cancelling_while_connecting(into: Path) -> None:
    async def scene(port: int) -> None:
        work = asyncio.ensure_future(download(image(f"http://127.0.0.1:{port}/"), into, lambda share: None))
        for _ in range(5):
            await asyncio.sleep(0.01)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(work, 5)

    with deaf_port() as port:
        asyncio.run(scene(port))
    assert not into.exists()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("not installed: openssl")
    both = tmp_path / "server.pem"
    command = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost")
    names = ("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    files = ("-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem"))
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    both.write_text((tmp_path / "key.pem").read_text() + (tmp_path / "cert.pem").read_text())
    return both


def encrypted(server: ImageServer, certificate: Path) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
    return f"https://127.0.0.1:{server.port}/image"


def test_https_with_a_trusted_certificate(into: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server = ImageServer(CONTENT)
    url = encrypted(server, certificate)
    with server:
        server.answers = [server.cut_after(300_000)]
        fails(image(url), into)
        fetch(image(url), into)
    assert is_complete(into)


def test_https_with_a_foreign_certificate(into: Path, certificate: Path) -> None:
    server = ImageServer(CONTENT)
    url = encrypted(server, certificate)
    with server:
        failure = fails(image(url), into)
    assert failure.code is DownloadCode.NO_CONNECTION
    assert "CERTIFICATE_VERIFY_FAILED" in failure.text


def test_two_cut_downloads_in_a_row(server: ImageServer, into: Path) -> None:
    server.answers = [server.cut_after(300_000)]
    fails(image(server.url), into)
    before = into.stat().st_size

    def cut_again(request) -> None:  # type: ignore[no-untyped-def]
        request.send_response(206)
        request.send_header("Content-Range", f"bytes {before}-{len(CONTENT) - 1}/{len(CONTENT)}")
        request.send_header("ETag", server.etag)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.write(b"1000\r\n" + CONTENT[before : before + 0x1000] + b"\r\n")

    server.answers = [cut_again]
    assert fails(image(server.url), into).code is DownloadCode.TRUNCATED
    assert into.stat().st_size == before + 0x1000
    fetch(image(server.url), into)
    assert is_complete(into)
