from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qsl, urlsplit

import pytest

from app.config import Settings
from app.core.errors import Forbidden
from app.services.image_urls import check, signed_url
from tests.server_kit import NOW, digest_of

DIGEST = digest_of("1.0")


def query_of(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))


def test_a_signed_url_is_good_for_its_image_until_it_expires(settings: Settings) -> None:
    url = signed_url(settings, DIGEST, "node_1", NOW, ttl_s=60)
    assert url.startswith(f"{settings.public_url}/images/blobs/{DIGEST}?")
    check(settings, DIGEST, query_of(url), NOW + 60)
    with pytest.raises(Forbidden, match="expired"):
        check(settings, DIGEST, query_of(url), NOW + 61)


@pytest.mark.parametrize(
    "change", [{"exp": "9999999999"}, {"node": "node_2"}, {"sig": "AAAA"}, {"sig": ""}, {"sig": "é"}, {"exp": "x"}]
)
def test_a_changed_url_is_refused(settings: Settings, change: dict[str, str]) -> None:
    query = query_of(signed_url(settings, DIGEST, "node_1", NOW))
    with pytest.raises(Forbidden):
        check(settings, DIGEST, query | change, NOW)


def test_a_url_is_useless_for_another_image_or_server(settings: Settings) -> None:
    query = query_of(signed_url(settings, DIGEST, "node_1", NOW))
    with pytest.raises(Forbidden):
        check(settings, digest_of("2.0"), query, NOW)
    with pytest.raises(Forbidden):
        check(replace(settings, secret_key="another"), DIGEST, query, NOW)


def test_a_url_without_signature_is_refused(settings: Settings) -> None:
    with pytest.raises(Forbidden):
        check(settings, DIGEST, {}, NOW)
