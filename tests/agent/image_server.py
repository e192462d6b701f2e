"""A small HTTP server with the faults that a download must survive; loopback only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

Answer = Callable[[BaseHTTPRequestHandler], None]


class ImageServer:
    """Serves `content`; `answers` are used up first, one a request. `requests` are (path, Range, If-Range)."""

    def __init__(self, content: bytes, *, etag: str = '"one"') -> None:
        self.content = content
        self.etag = etag
        self.answers: list[Answer] = []
        self.requests: list[tuple[str, str | None, str | None]] = []
        self.released = threading.Event()
        """Set at the end: answers that hang wait for it."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/image"

    def __enter__(self) -> ImageServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Answer nobody any more; the port refuses."""
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def whole(self, request: BaseHTTPRequestHandler) -> None:
        """An honest answer."""
        start = self._start(request)
        if start >= len(self.content) > 0:
            status(416)(request)
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        self.send_body(request, self.content[start:])

    def cut_after(self, count: int) -> Answer:
        """The connection ends `count` bytes into the body."""

        def answer(request: BaseHTTPRequestHandler) -> None:
            request.send_response(200)
            request.send_header("ETag", self.etag)
            request.send_header("Content-Length", str(len(self.content)))
            request.end_headers()
            request.wfile.write(self.content[:count])

        return answer

    def hang_after(self, count: int | None) -> Answer:
        """Silence after `count` bytes of the body; None: before the status line."""

        def answer(request: BaseHTTPRequestHandler) -> None:
            if count is not None:
                self.cut_after(count)(request)
                request.wfile.flush()
            self.released.wait(30)

        return answer

    def ignoring_range(self, request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        self.send_body(request, self.content)

    def send_body(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        if self.etag:
            request.send_header("ETag", self.etag)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        try:
            request.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            return  # the client had enough

    def _start(self, request: BaseHTTPRequestHandler) -> int:
        wanted, condition = request.headers.get("Range"), request.headers.get("If-Range")
        if wanted is None or (condition is not None and condition != self.etag):
            return 0
        return int(wanted.removeprefix("bytes=").removesuffix("-"))

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
                answer = server.answers.pop(0) if server.answers else server.whole
                answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet: the test looks at `requests`."""

        return Handler


def status(code: int, **headers: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer
