from __future__ import annotations

import io
from urllib.parse import urlsplit

import pytest

from app.config import Settings
from app.services.blobs import Blobs
from app.services.image_urls import URL_TTL_S, signed_url
from app.services.images import Description, store_upload
from app.store.database import Database
from tests.server_kit import NOW, OPERATOR, digest_of
from tests.services.image_kit import digest_of_bytes
from tests.web.console_kit import Browser

CONTENT = bytes(range(256)) * 4096  # 1 MiB, each offset recognisable
DIGEST = digest_of_bytes(CONTENT)


@pytest.fixture
def node(database: Database, settings: Settings) -> Browser:
    """Somebody without a session."""
    store_upload(
        database,
        settings,
        OPERATOR,
        io.BytesIO(CONTENT),
        Description("demo", "amd64", "1.0"),
        reason="",
        now=NOW,
    )
    return Browser(database, settings, name="")


def path(node: Browser, digest: str = DIGEST) -> str:
    url = urlsplit(signed_url(node.settings, digest, "node_1", NOW))
    return f"{url.path}?{url.query}"


def test_a_node_fetches_an_image_by_its_url(node: Browser) -> None:
    answer = node.get(path(node))
    assert answer.status_code == 200
    assert answer.data == CONTENT
    assert answer.headers["ETag"] == f'"{DIGEST}"'
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.mimetype == "application/octet-stream"


def test_a_download_resumes_byte_for_byte(node: Browser) -> None:
    headers = {"Range": "bytes=1000-", "If-Range": f'"{DIGEST}"'}
    answer = node.get(path(node), headers=headers)
    assert answer.status_code == 206
    assert answer.headers["Content-Range"] == f"bytes 1000-{len(CONTENT) - 1}/{len(CONTENT)}"
    assert CONTENT[:1000] + answer.data == CONTENT


def test_a_range_in_the_middle_is_exact(node: Browser) -> None:
    answer = node.get(path(node), headers={"Range": "bytes=4095-8192"})
    assert answer.status_code == 206
    assert answer.data == CONTENT[4095:8193]


def test_other_content_is_never_resumed(node: Browser) -> None:
    answer = node.get(path(node), headers={"Range": "bytes=1000-", "If-Range": f'"{digest_of("other")}"'})
    assert answer.status_code == 200
    assert answer.data == CONTENT


def test_a_range_beyond_the_end_is_refused(node: Browser) -> None:
    answer = node.get(path(node), headers={"Range": f"bytes={len(CONTENT)}-"})
    assert answer.status_code == 416


def test_a_head_says_the_size(node: Browser) -> None:
    answer = node.client.head(path(node), buffered=True)
    assert answer.status_code == 200
    assert answer.headers["Content-Length"] == str(len(CONTENT))
    assert answer.data == b""


def test_an_expired_url_is_refused_in_text(node: Browser) -> None:
    there = path(node)
    node.now += URL_TTL_S + 1
    answer = node.get(there)
    assert (answer.status_code, answer.mimetype) == (403, "text/plain")
    assert "expired" in answer.text


@pytest.mark.parametrize(
    "change", [("node=node_1", "node=node_2"), ("exp=1", "exp=2"), ("sig=", "sig=A"), ("sig=", "")]
)
def test_a_changed_url_is_refused(node: Browser, change: tuple[str, str]) -> None:
    assert node.get(path(node).replace(*change)).status_code == 403


def test_a_url_for_another_image_is_refused(node: Browser) -> None:
    assert node.get(path(node).replace(DIGEST, digest_of("other"))).status_code == 403


def test_an_image_without_url_is_refused_even_with_a_session(node: Browser) -> None:
    browser = Browser(node.db, node.settings)
    assert browser.get(f"/images/blobs/{DIGEST}").status_code == 403


def test_an_image_that_is_not_here_is_not_found(node: Browser) -> None:
    answer = node.get(path(node, digest_of("unknown")))
    assert (answer.status_code, answer.mimetype) == (404, "text/plain")


def test_a_signed_url_for_no_digest_reaches_no_file(node: Browser) -> None:
    secret = node.settings.data_dir / "secret"
    secret.write_text("secret")
    assert Blobs(node.settings).has(DIGEST)
    for digest in ("..", "sha256:..%2f..%2fsecret", "secret"):
        assert node.get(path(node, digest)).status_code in (403, 404)
