"""The HTTP parser alone: what it takes, what it refuses, and that pieces make no difference."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.runtimes.http import MAX_HEAD_BYTES, HttpError, ResponseParser, request
from tests.agent.runtimes.fake_engine import answer, chunked

OK = b"HTTP/1.1 200 OK\r\n"


def parsed(raw: bytes, *, closed: bool = False) -> tuple[int | None, bytes, bool]:
    parser = ResponseParser()
    body = parser.feed(raw)
    if closed:
        parser.closed()
    return (parser.head.status if parser.head else None), body, parser.done


def test_known_length_chunks_and_until_close() -> None:
    assert parsed(answer("hello")) == (200, b"hello", True)
    assert parsed(answer("", 404)) == (404, b"", True)
    assert parsed(chunked(b"hello", 2)) == (200, b"hello", True)
    assert parsed(OK + b"\r\nhel") == (200, b"hel", False)
    assert parsed(OK + b"\r\nhello", closed=True) == (200, b"hello", True)
    assert parsed(b"HTTP/1.1 204 No Content\r\n\r\n") == (204, b"", True)


def test_an_interim_answer_comes_before_the_real_one() -> None:
    assert parsed(b"HTTP/1.1 100 Continue\r\n\r\n" + answer("x")) == (200, b"x", True)


def test_chunk_extensions_and_trailers_are_skipped() -> None:
    raw = OK + b'Transfer-Encoding: Chunked\r\n\r\n2;a="b"\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n'
    assert parsed(raw) == (200, b"hi", True)


def test_repeated_fields_are_joined_and_names_are_lower_case() -> None:
    parser = ResponseParser()
    parser.feed(OK + b"X-A: 1\r\nx-a:2\t\r\nContent-Length: 0\r\n\r\n")
    assert parser.head is not None
    assert parser.head.fields == {"x-a": "1, 2", "content-length": "0"}


REFUSED = {
    "not HTTP": b"garbage\r\n\r\n",
    "another version": b"HTTP/2 200\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "a status below 100": b"HTTP/1.1 042 x\r\n\r\n",
    "space before the colon": OK + b"Content-Length : 1\r\n\r\na",
    "a folded field": OK + b"X: 1\r\n 2\r\n\r\n",
    "a field without colon": OK + b"nonsense\r\n\r\n",
    "two lengths that differ": OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and coding": OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "an unknown coding": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "a length with a sign": OK + b"Content-Length: +1\r\n\r\na",
    "a length in another script": OK + "Content-Length: ١\r\n\r\n".encode(),
    "a chunk without size": OK + b"Transfer-Encoding: chunked\r\n\r\n\r\n",
    "a negative chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
    "a chunk too long": OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
    "an endless chunk line": OK + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 9000,
    "an endless header": OK + b"X: " + b"x" * MAX_HEAD_BYTES,
    "something after the end": answer("x") + b"HTTP/1.1 200 OK\r\n\r\n",
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    with pytest.raises(HttpError):
        ResponseParser().feed(REFUSED[case])


@pytest.mark.parametrize("raw", [b"", OK, answer("hello")[:-1], chunked(b"hello", 2)[:-2]])
def test_an_end_in_the_middle_is_an_error(raw: bytes) -> None:
    parser = ResponseParser()
    parser.feed(raw)
    with pytest.raises(HttpError):
        parser.closed()


def in_pieces(raw: bytes, cuts: list[int]) -> tuple[bytes, bool] | None:
    """Body and whether it is complete, fed in pieces; None when refused."""
    parser = ResponseParser()
    body = b""
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    try:
        for begin, end in itertools.pairwise(edges):
            body += parser.feed(raw[begin:end])
    except HttpError:
        return None
    return body, parser.done


CUTS = st.lists(st.integers(0, 300), max_size=12)


@given(st.binary(max_size=200), st.integers(1, 50), CUTS)
def test_pieces_make_no_difference(body: bytes, chunk: int, cuts: list[int]) -> None:
    assert in_pieces(answer(body), cuts) == (body, True)
    assert in_pieces(chunked(body, chunk), cuts) == (body, True)


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda tail: OK + tail)), CUTS)
def test_arbitrary_bytes_are_taken_or_refused_alike_in_any_pieces(raw: bytes, cuts: list[int]) -> None:
    assert in_pieces(raw, cuts) == in_pieces(raw, [])


@given(st.binary(max_size=200), st.integers(0, 250), st.binary(min_size=1, max_size=8))
def test_a_damaged_answer_is_taken_or_refused(body: bytes, at: int, damage: bytes) -> None:
    raw = bytearray(chunked(body, 16))
    raw[at : at + len(damage)] = damage
    result = in_pieces(bytes(raw), [])
    assert result is None or len(result[0]) <= len(raw)


def test_a_request_is_one_line_and_closes() -> None:
    assert request("/_ping").startswith(b"GET /_ping HTTP/1.1\r\n")
    assert b"Connection: close\r\n" in request("/_ping")


@pytest.mark.parametrize("path", ["ping", "/a b", "/a\r\nX: 1", "/ä"])
def test_a_path_cannot_smuggle(path: str) -> None:
    with pytest.raises(ValueError, match="not a request path"):
        request(path)
