"""A private Prometheus on loopback that scrapes one small target of the test's own; nothing is left behind."""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

_START_S = 60.0
_UNPACKED = Path(__file__).resolve().parents[1] / ".venv/debian/prometheus/usr/bin/prometheus"
"""Where scripts/setup puts the program of Debian's package."""


class Unavailable(Exception):
    """Why there is no Prometheus here; the reason of the skip."""


class Target(BaseHTTPRequestHandler):
    """What is scraped: one gauge, `errors`, of two jobs."""

    metrics: ClassVar[str] = 'errors{part="a"} 0\nerrors{part="b"} 7\nload 0.5\n'

    def do_GET(self) -> None:
        body = self.metrics.encode()
        self.send_response(200)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """An HTTP server on loopback; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def private_server() -> Iterator[str]:
    """Yields the address of a Prometheus that has scraped its target."""
    program = shutil.which("prometheus") or (str(_UNPACKED) if _UNPACKED.exists() else None)
    if program is None:
        raise Unavailable("Prometheus is not here: install Debian's prometheus")
    folder = Path(tempfile.mkdtemp(prefix="twinroot-prometheus-"))
    try:
        with serving(Target) as target, _started(program, folder, target) as address:
            yield address
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _started(program: str, folder: Path, target: str) -> Iterator[str]:
    port = _free_port()
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
        f"scrape_configs: [{{job_name: small, static_configs: [{{targets: ['{target.removeprefix('http://')}']}}]}}]\n"
    )
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        _await_scrape(port, server, folder)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()  # its data is thrown away
        server.wait(timeout=30)


def _await_scrape(port: int, server: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        with suppress(OSError), closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as conn:
            conn.request("GET", "/api/v1/query?query=load")
            if b'"value"' in conn.getresponse().read():
                return
        time.sleep(0.05)
    raise AssertionError("Prometheus did not start:\n" + (folder / "log").read_text()[-2000:])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
