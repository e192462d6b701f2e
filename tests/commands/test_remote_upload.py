"""`twinroot image upload --to`: over a real connection to a console elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from werkzeug.serving import make_server

from app.commands.remote_upload import send
from app.config import Settings
from app.core.errors import NotPossible
from app.factory import create_app
from app.services.blobs import Blobs
from app.services.images import Description
from app.services.sign_in import create_login_link
from app.store import images, schema
from app.store.database import Database
from tests.server_kit import NOW, count_rows
from tests.services.image_kit import Signer, digest_of_bytes, image_bytes
from wire.image_keys import signature_line

CONTENT = image_bytes("1.0", payload=bytes(3 * 1024 * 1024))


class Console:
    def __init__(self, db: Database, settings: Settings, url: str) -> None:
        self.db = db
        self.settings = settings
        self.url = url

    def link(self) -> str:
        return f"{self.url}/sign-in/{create_login_link(self.db, 'release', NOW)}"


@pytest.fixture
def console(database: Database, settings: Settings) -> Iterator[Console]:
    server = make_server("127.0.0.1", 0, create_app(database, settings, clock=lambda: NOW), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.port}"
        yield Console(database, replace(settings, public_url=url), url)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "demo.img"
    path.write_bytes(CONTENT)
    return path


def test_an_image_is_sent_with_its_signature_and_author(console: Console, file: Path) -> None:
    signature = signature_line(Signer().sign(CONTENT))
    image_id = send(console.link(), file, Description(notes="über alles"), signature, "nightly & co")
    with console.db.read() as conn:
        image = images.get(conn, image_id)
    assert image is not None
    assert (image.version, image.notes, image.created_by) == ("1.0", "über alles", "release")
    assert signature_line(image.signed or Signer().sign(b"")) == signature
    assert Blobs(console.settings).path(digest_of_bytes(CONTENT)).read_bytes() == CONTENT


def test_a_refusal_is_said_in_the_console_s_words(console: Console, file: Path) -> None:
    with pytest.raises(NotPossible) as refused:
        send(console.link(), file, Description(version="2.0"), "", "")
    assert refused.value.text == "The image itself says version 1.0, not 2.0. Nothing was stored."
    assert count_rows(console.db, schema.images) == 0


def test_a_spent_link_sends_nothing(console: Console, file: Path) -> None:
    link = console.link()
    send(link, file, Description(), "", "")
    with pytest.raises(NotPossible) as refused:
        send(link, file, Description(), "", "")
    assert refused.value.code == "link-spent"
