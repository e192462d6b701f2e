"""The real HTTP server of the web process: many connections, slow downloads, bodies of people who are nobody."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from app.config import Settings
from app.services.image_urls import signed_url
from app.services.sign_in import SESSION_COOKIE, create_login_link, use_login_link
from app.store.database import open_database
from tests.server_kit import digest_of

WAIT_S = 30.0
MANY = 300
"""More connections than waitress takes unless it is told, and more files than the process begins with."""
FEW_FILES = 200


@dataclass(frozen=True)
class Web:
    settings: Settings
    process: subprocess.Popen[bytes]
    spool: Path
    """Where it keeps what is being received."""

    @property
    def port(self) -> int:
        return self.settings.http.port

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)

    def status(self, path: str) -> int:
        conn = self.connection()
        try:
            conn.request("GET", path)
            return conn.getresponse().status
        finally:
            conn.close()

    def cookie(self) -> str:
        db = open_database(self.settings.database_url)
        try:
            secret = use_login_link(db, create_login_link(db, "mb", time.time()), time.time())
        finally:
            db.close()
        return f"{SESSION_COOKIE}={secret}"

    def spooled_bytes(self) -> int:
        """What temporary files of the process hold, also those without a name."""
        total = 0
        for file in Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                if self.spool in file.readlink().parents:
                    total += file.stat().st_size
            except FileNotFoundError:
                continue  # closed since
        return total


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def web(tmp_path: Path, settings: Settings, sqlite_template: Path) -> Iterator[Web]:
    file = tmp_path / "twinroot.db"
    file.write_bytes(sqlite_template.read_bytes())
    spool = tmp_path / "spool"
    spool.mkdir()
    address = replace(settings.http, port=free_port())
    settings = replace(settings, http=address, public_url=f"http://{address}")
    environ = os.environ | {
        "TWINROOT_DATABASE_URL": settings.database_url,
        "TWINROOT_DATA_DIR": str(settings.data_dir),
        "TWINROOT_HTTP": str(address),
        "TWINROOT_SECRET_KEY": settings.secret_key,
        "TMPDIR": str(spool),
    }
    few_files = ["prlimit", f"--nofile={FEW_FILES}:", sys.executable, "-m", "app.cli", "web"]
    process = subprocess.Popen(few_files, env=environ)
    found = Web(settings, process, spool)
    try:
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                assert found.status("/healthz") == 200
                break
            except ConnectionRefusedError:
                assert process.poll() is None and time.monotonic() < deadline, "it does not listen"
                time.sleep(0.05)
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=WAIT_S) == 0


def test_idle_connections_of_many_browsers_keep_nobody_out(web: Web) -> None:
    with ExitStack() as idle:
        for _ in range(MANY):
            idle.enter_context(socket.create_connection(("127.0.0.1", web.port), timeout=WAIT_S))
        assert web.status("/healthz") == 200


@pytest.mark.parametrize("range_", ["", "bytes=1048576-"])
def test_slow_downloads_take_no_thread(web: Web, range_: str) -> None:
    digest = digest_of("large")
    name = digest.removeprefix("sha256:")
    blob = web.settings.data_dir / "images" / name[:2] / name
    blob.parent.mkdir(parents=True)
    with blob.open("wb") as out:
        out.truncate(256 * 1024 * 1024)
    url = signed_url(web.settings, digest, "node_a", time.time()).removeprefix(web.settings.public_url)
    head = f"GET {url} HTTP/1.1\r\nHost: web\r\n" + (f"Range: {range_}\r\n" if range_ else "") + "\r\n"
    with ExitStack() as slow:
        for _ in range(20):
            line = socket.create_connection(("127.0.0.1", web.port), timeout=WAIT_S)
            slow.enter_context(line)
            line.sendall(head.encode())
            assert line.recv(12) in (b"HTTP/1.1 200", b"HTTP/1.1 206")  # and reads no further
        assert web.status("/healthz") == 200


def test_a_range_is_sent_exactly(web: Web) -> None:
    digest = digest_of("small")
    name = digest.removeprefix("sha256:")
    blob = web.settings.data_dir / "images" / name[:2] / name
    blob.parent.mkdir(parents=True)
    content = bytes(range(256)) * 4096
    blob.write_bytes(content)
    url = signed_url(web.settings, digest, "node_a", time.time()).removeprefix(web.settings.public_url)
    conn = web.connection()
    for range_, start, end in (("bytes=1000-1999", 1000, 2000), ("bytes=5000-", 5000, len(content)), ("", 0, None)):
        conn.request("GET", url, headers={"Range": range_} if range_ else {})
        answer = conn.getresponse()
        assert (answer.status, answer.read()) == (206 if range_ else 200, content[start:end])
    conn.request("GET", url, headers={"Range": f"bytes={len(content)}-"})
    answer = conn.getresponse()
    answer.read()
    assert answer.status == 416
    conn.request("HEAD", url, headers={"Range": "bytes=1000-1999"})
    answer = conn.getresponse()
    assert (answer.status, answer.headers["Content-Length"], answer.read()) == (206, "1000", b"")
    conn.request("GET", "/healthz")
    assert conn.getresponse().read() == b"ok\n"
    conn.close()


@pytest.mark.parametrize(
    ("method", "path", "cookie", "status"),
    [
        ("POST", "/nodes", "", 413),
        ("POST", "/sign-in", "", 413),
        ("PUT", "/images/content", "", 401),
        ("POST", "/images/upload", f"{SESSION_COOKIE}=guessed", 401),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_whoever_has_not_signed_in_fills_no_disk(
    web: Web, method: str, path: str, cookie: str, status: int, chunked: bool
) -> None:
    """Most of 64 MiB is never taken; told by the answer, or by the connection that is closed in the middle."""
    piece = bytes(1024 * 1024)
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {64 * len(piece)}"
    head = f"{method} {path} HTTP/1.1\r\nHost: web\r\nCookie: {cookie}\r\n{length}\r\n\r\n"
    most = 0
    with socket.create_connection(("127.0.0.1", web.port), timeout=WAIT_S) as line:
        line.sendall(head.encode())
        try:
            for _ in range(64):
                line.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                most = max(most, web.spooled_bytes())
            answer = line.recv(12)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
    assert answer in (b"", f"HTTP/1.1 {status}".encode())
    assert most <= 4 * len(piece)
    assert web.status("/healthz") == 200


def test_who_has_not_signed_in_is_told_so(web: Web) -> None:
    conn = web.connection()
    conn.putrequest("PUT", "/images/content")
    conn.putheader("Content-Length", str(64 * 1024 * 1024))
    conn.endheaders()
    answer = conn.getresponse()
    assert answer.status == 401 and b"Sign in first" in answer.read()
    conn.close()


def test_who_has_signed_in_may_send_a_large_image(web: Web) -> None:
    """As far as the server is concerned: the token of the form is missing, and that is what is answered."""
    conn = web.connection()
    headers = {"Cookie": web.cookie(), "Content-Type": "application/octet-stream"}
    conn.request("PUT", "/images/content", body=bytes(8 * 1024 * 1024), headers=headers)
    answer = conn.getresponse()
    assert answer.status == 403 and b"Nothing was changed" in answer.read()
    conn.close()
