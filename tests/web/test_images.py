from __future__ import annotations

import io
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import select
from werkzeug.datastructures import FileStorage

from app.config import Settings
from app.services.blobs import Blobs
from app.store import schema
from app.store.database import Database
from tests.server_kit import add_image, add_node, count_rows
from tests.services.image_kit import Signer, digest_of_bytes, files_below, image_bytes
from tests.web.console_kit import Browser, forms_of
from wire.image_keys import signature_line

CONTENT = image_bytes("1.0")


@pytest.fixture
def browser(database: Database, settings: Settings) -> Browser:
    return Browser(database, settings)


def upload(browser: Browser, content: bytes = CONTENT, **given: str) -> Any:
    return browser.fill("/images/upload", "/images/upload", image=FileStorage(io.BytesIO(content), "demo.img"), **given)


def put(browser: Browser, content: Any = CONTENT, headers: dict[str, str] | None = None, **query: str) -> Any:
    csrf = browser.form("/images/upload", "/images/upload").values["csrf"]
    return browser.client.put("/images/content", query_string={"csrf": csrf, **query}, data=content, headers=headers)


def stored(browser: Browser) -> int:
    return count_rows(browser.db, schema.images)


def test_without_images_the_page_shows_the_exact_command(browser: Browser) -> None:
    page = browser.get("/images")
    assert page.status_code == 200
    assert "twinroot image upload IMAGE_FILE" in page.text
    for name in ("alpha", "beta", "stable"):
        assert name in page.text


def test_an_upload_by_the_form_leads_to_the_image(browser: Browser) -> None:
    answer = upload(browser, notes="the first", reason="try it")
    assert answer.status_code == 303
    page = browser.get(answer.location)
    assert page.status_code == 200
    assert digest_of_bytes(CONTENT) in page.text
    assert "the first" in page.text
    assert "unsigned" in page.text
    assert "1.0" in browser.get("/images").text


def test_a_large_upload_by_the_form_is_taken(browser: Browser) -> None:
    content = image_bytes("1.0", payload=bytes(9 * 1024 * 1024))
    assert upload(browser, content).status_code == 303
    assert Blobs(browser.settings).path(digest_of_bytes(content)).stat().st_size == len(content)


def test_a_refused_upload_keeps_what_was_typed(browser: Browser) -> None:
    answer = upload(browser, version="9.9", notes="typed with care")
    assert answer.status_code == 422
    assert "The image itself says version 1.0, not 9.9" in answer.text
    form = next(form for form in forms_of(answer) if form.action.startswith("/images/upload"))
    assert (form.values["version"], form.values["notes"]) == ("9.9", "typed with care")
    assert stored(browser) == 0
    assert files_below(browser.settings.data_dir / "images") == []


def test_an_upload_without_file_says_so(browser: Browser) -> None:
    answer = browser.fill("/images/upload", "/images/upload")
    assert answer.status_code == 422
    assert "Choose the image file" in answer.text


def test_an_upload_needs_the_token_of_the_session(browser: Browser) -> None:
    data = {"image": (io.BytesIO(CONTENT), "demo.img")}
    assert browser.client.post("/images/upload", data=data, content_type="multipart/form-data").status_code == 403
    assert browser.client.put("/images/content", data=CONTENT).status_code == 403
    assert stored(browser) == 0


def test_an_upload_from_another_site_is_refused(browser: Browser) -> None:
    answer = put(browser, headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403
    assert stored(browser) == 0


def test_a_raw_upload_answers_with_the_id(browser: Browser) -> None:
    answer = put(browser, notes="by command")
    assert (answer.status_code, answer.mimetype) == (201, "text/plain")
    image_id = answer.text.strip()
    assert browser.get(f"/images/{image_id}").status_code == 200
    assert put(browser).text.strip() == image_id


def test_a_raw_upload_is_refused_in_text(browser: Browser) -> None:
    answer = put(browser, version="2.0")
    assert (answer.status_code, answer.mimetype) == (422, "text/plain")
    assert answer.text == "The image itself says version 1.0, not 2.0. Nothing was stored.\n"
    wrong = put(browser, digest="ab" * 32)
    assert wrong.status_code == 422
    assert "as announced" in wrong.text
    assert stored(browser) == 0


def test_an_upload_that_announces_too_much_is_refused_before_it_is_read(browser: Browser) -> None:
    csrf = browser.form("/images/upload", "/images/upload").values["csrf"]
    announced = {"CONTENT_LENGTH": str(33 * 1024**3)}
    answer = browser.client.put(f"/images/content?csrf={csrf}", data=CONTENT, environ_overrides=announced)
    assert answer.status_code == 413
    assert stored(browser) == 0


def test_a_forged_signature_is_refused_at_its_field(browser: Browser) -> None:
    signer = Signer().known_to(browser.settings)
    answer = upload(browser, signature=signature_line(signer.sign(CONTENT + b"x")))
    assert answer.status_code == 422
    assert f"The signature is not by key {signer.key_id}" in answer.text
    assert upload(browser, signature=signature_line(signer.sign(CONTENT))).status_code == 303


def test_a_signature_is_added_on_its_page(browser: Browser) -> None:
    signer = Signer().known_to(browser.settings)
    where = upload(browser).location
    bad = browser.fill(f"{where}/sign", "/sign", signature="rubbish")
    assert bad.status_code == 422
    assert "This is no signature" in bad.text
    empty = browser.fill(f"{where}/sign", "/sign", signature="")
    assert empty.status_code == 422
    good = browser.fill(f"{where}/sign", "/sign", signature=signature_line(signer.sign(CONTENT)))
    assert (good.status_code, good.location) == (303, where)
    assert "verified" in browser.get(where).text


def test_an_image_elsewhere_is_registered(browser: Browser) -> None:
    values = {"os": "demo", "arch": "arm64", "version": "3.0", "url": "https://images.example/3", "digest": "ab" * 32}
    answer = browser.fill("/images/register", "/images/register", size="1,048,576", **values)
    assert answer.status_code == 303
    page = browser.get(answer.location).text
    assert "https://images.example/3" in page
    assert "1 MiB" in page


def test_a_bad_registration_says_where(browser: Browser) -> None:
    values = {"os": "demo", "arch": "arm64", "version": "3.0", "url": "https://images.example/3", "digest": "ab" * 32}
    answer = browser.fill("/images/register", "/images/register", size="much", **values)
    assert answer.status_code == 422
    assert "“much” is no number of bytes" in answer.text
    assert "https://images.example/3" in answer.text
    assert stored(browser) == 0


def test_the_same_form_sent_twice_registers_once(browser: Browser) -> None:
    form = browser.form("/images/register", "/images/register")
    values = {"os": "demo", "arch": "arm64", "version": "3.0", "url": "https://x.example/3", "digest": "ab" * 32}
    first = browser.submit("/images/register", form, size="5", **values)
    second = browser.submit("/images/register", form, size="5", **values)
    assert (first.status_code, second.status_code) == (303, 303)
    assert stored(browser) == 1
    with browser.db.read() as conn:
        assert len(conn.execute(select(schema.audit).where(schema.audit.c.action == "image.register")).all()) == 1


def test_adoption_equals_the_list_that_it_links_to(browser: Browser) -> None:
    with browser.db.write() as change:
        image_id = add_image(change.conn, "1.0")
        for admission in ("admitted", "admitted", "retired"):
            add_node(change.conn, version="1.0", admission=admission)
        add_node(change.conn, version="1.0", arch="arm64")
        change.touch("images", "fleet")
    for path in (f"/images/{image_id}", "/images"):
        found = re.search(r'<a class="text" href="(/nodes[^"]+)">(\d+)</a>', browser.get(path).text)
        assert found
        query = parse_qs(urlsplit(found[1]).query)["q"][0]
        listed = browser.get("/nodes.json", query_string={"q": query}).json
        assert listed is not None
        assert len(listed) == int(found[2]) == 2


def test_pages_of_what_is_not_there_say_so(browser: Browser) -> None:
    for path in ("/images/img_none", "/images/img_none/sign", "/channels/chan_none", "/channels/chan_none/promote"):
        assert browser.get(path).status_code == 404


def test_the_page_is_fetched_again_only_when_something_changed(browser: Browser) -> None:
    first = browser.get("/images")
    again = browser.get("/images", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
    upload(browser)
    changed = browser.get("/images", headers={"If-None-Match": first.headers["ETag"]})
    assert changed.status_code == 200
    assert "1.0" in changed.text


@pytest.mark.parametrize("block", ["pointers", "image-list"])
def test_a_live_section_is_the_page_s_own(browser: Browser, block: str) -> None:
    upload(browser)
    headers = {"HX-Request": "true", "HX-Request-Type": "partial", "HX-Target": f"section#{block}"}
    fragment = browser.get("/images", headers=headers).text.strip()
    assert f'id="{block}"' in fragment
    assert fragment in browser.get("/images").text


def test_version_edges_are_set_shown_and_taken_away(browser: Browser) -> None:
    with browser.db.write() as change:
        image = add_image(change.conn, "3.0")
    path = f"/images/{image}/edges"
    answer = browser.fill(path, path, must_pass="2.0\n2.1", not_from="1.5, 1.6", reason="new boot loader")
    assert (answer.status_code, answer.location) == (303, f"/images/{image}")
    text = browser.get(f"/images/{image}").text
    assert "2.0, 2.1</span> or later" in text
    assert 'never from <span class="mono">1.5, 1.6</span>' in text
    assert browser.form(path, path).values["must_pass"] == "2.0\n2.1", "the form begins with what is set"
    assert browser.fill(path, path, must_pass="", not_from="", reason="as before").status_code == 303
    assert "any version" in browser.get(f"/images/{image}").text
    with browser.db.read() as conn:
        audited = conn.execute(select(schema.audit.c.actor_name, schema.audit.c.reason)).all()
    assert [tuple(row) for row in audited][-2:] == [("mb", "new boot loader"), ("mb", "as before")]


@pytest.mark.parametrize("wrong", [{"must_pass": "3.0"}, {"not_from": "3.0"}, {"must_pass": "2.0", "reason": ""}])
def test_wrong_version_edges_change_nothing(browser: Browser, wrong: dict[str, str]) -> None:
    with browser.db.write() as change:
        image = add_image(change.conn, "3.0")
    path = f"/images/{image}/edges"
    answer = browser.fill(path, path, **{"reason": "slip", **wrong})
    assert answer.status_code == 422
    assert wrong.get("must_pass", wrong.get("not_from", "")) in answer.text
    assert "any version" in browser.get(f"/images/{image}").text
