from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select

from app.config import Settings
from app.core.errors import Invalid, Misconfigured, NotFound, NotPossible, TooLarge, TwinrootError
from app.core.image_identity import image_name
from app.services.blobs import Blobs
from app.services.image_trust import SignatureState, known_keys, signature_state
from app.services.images import Description, attach_signature, register, signature_of, store_upload
from app.store import images as store
from app.store import schema
from app.store.database import Database
from app.store.images import Image
from tests.server_kit import NOW, OPERATOR, add_node, count_rows
from tests.services.image_kit import Signer, digest_of_bytes, files_below, image_bytes
from wire.image_keys import signature_line

CONTENT = image_bytes("1.0")


def upload(db: Database, settings: Settings, content: bytes = CONTENT, **given: Any) -> str:
    stream = given.pop("stream", None) or io.BytesIO(content)
    values: dict[str, Any] = {"reason": "test", "now": NOW, "description": Description()}
    values |= given
    return store_upload(db, settings, OPERATOR, stream, values.pop("description"), **values)


def registered(db: Database, settings: Settings, **given: Any) -> str:
    values: dict[str, Any] = {
        "digest": digest_of_bytes(CONTENT),
        "size": len(CONTENT),
        "url": "https://images.example/1.0",
        "reason": "test",
        "now": NOW,
    }
    values |= given
    description = values.pop("description", Description("demo", "amd64", "1.0"))
    return register(db, settings, OPERATOR, description, **values)


def found(db: Database, image_id: str) -> Image:
    with db.read() as conn:
        image = store.get(conn, image_id)
    assert image is not None
    return image


def refused(db: Database, settings: Settings, kind: type[TwinrootError], **given: Any) -> TwinrootError:
    """The refusal of an upload that left nothing behind: no row, no file, no audit entry."""
    before = files_below(settings.data_dir / "images"), count_rows(db, schema.images), count_rows(db, schema.audit)
    with pytest.raises(kind) as error:
        upload(db, settings, **given)
    after = files_below(settings.data_dir / "images"), count_rows(db, schema.images), count_rows(db, schema.audit)
    assert after == before
    return error.value


def test_an_upload_is_stored_by_its_content(database: Database, settings: Settings) -> None:
    image = found(database, upload(database, settings))
    assert (image.os, image.arch, image.version) == ("demo", "amd64", "1.0")  # read from the image itself
    assert (image.digest, image.size, image.stored) == (digest_of_bytes(CONTENT), len(CONTENT), True)
    path = Blobs(settings).path(image.digest)
    digits = image.digest.removeprefix("sha256:")
    assert path == settings.data_dir / "images" / digits[:2] / digits
    assert path.read_bytes() == CONTENT
    assert files_below(settings.data_dir / "images") == [path]


def test_the_same_upload_again_is_the_same_image(database: Database, settings: Settings) -> None:
    first = upload(database, settings)
    assert upload(database, settings) == first
    assert count_rows(database, schema.images) == 1


def test_uploads_of_one_image_at_once_are_one_image(database: Database, settings: Settings) -> None:
    with ThreadPoolExecutor(6) as pool:
        ids = set(pool.map(lambda _: upload(database, settings), range(6)))
    assert len(ids) == 1
    assert len(files_below(settings.data_dir / "images")) == 1


def test_other_content_under_a_known_name_is_refused(database: Database, settings: Settings) -> None:
    upload(database, settings)
    error = refused(database, settings, NotPossible, content=image_bytes("1.0", payload=b"other"))
    assert error.code == "version-taken"
    assert "demo 1.0 for amd64" in error.text


def test_of_two_contents_under_one_name_at_once_one_stays(database: Database, settings: Settings) -> None:
    def try_it(number: int) -> bool:
        try:
            upload(database, settings, image_bytes("1.0", payload=bytes([number])))
        except NotPossible:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(try_it, range(6))) == 1
    assert count_rows(database, schema.images) == 1


def test_one_content_may_have_two_names(database: Database, settings: Settings) -> None:
    plain = b"no header at all"
    first = upload(database, settings, plain, description=Description("demo", "amd64", "1.0"))
    second = upload(database, settings, plain, description=Description("demo", "amd64", "1.0-again"))
    assert first != second
    assert len(files_below(settings.data_dir / "images")) == 1


def test_a_truncated_upload_is_refused(database: Database, settings: Settings) -> None:
    error = refused(database, settings, Invalid, content=CONTENT[:-3], length=len(CONTENT))
    assert isinstance(error, Invalid)
    assert error.field == "size"
    assert f"{len(CONTENT) - 3} of {len(CONTENT)} bytes" in error.text


def test_a_wrong_digest_is_refused(database: Database, settings: Settings) -> None:
    error = refused(database, settings, Invalid, digest="ab" * 32)
    assert isinstance(error, Invalid)
    assert error.field == "digest"


def test_an_oversized_upload_is_refused_without_reading_it_all(database: Database, settings: Settings) -> None:
    class Endless:
        taken = 0

        def read(self, size: int) -> bytes:
            self.taken += size
            return bytes(size)

    endless = Endless()
    refused(database, settings, TooLarge, stream=endless, limit=3 * 1024 * 1024)
    assert endless.taken <= 4 * 1024 * 1024


def test_an_empty_upload_is_refused(database: Database, settings: Settings) -> None:
    refused(database, settings, Invalid, content=b"", description=Description("demo", "amd64", "1.0"))


def test_a_sender_that_breaks_off_leaves_nothing(database: Database, settings: Settings) -> None:
    class Broken:
        def read(self, _size: int) -> bytes:
            raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        upload(database, settings, stream=Broken())
    assert files_below(settings.data_dir / "images") == []


def test_names_that_contradict_the_image_are_refused(database: Database, settings: Settings) -> None:
    for field, description in {
        "os": Description(os="other"),
        "arch": Description(arch="arm64"),
        "version": Description(version="2.0"),
    }.items():
        error = refused(database, settings, Invalid, description=description)
        assert isinstance(error, Invalid)
        assert error.field == field


def test_an_image_without_header_must_be_named(database: Database, settings: Settings) -> None:
    error = refused(database, settings, Invalid, content=b"raw")
    assert isinstance(error, Invalid)
    assert error.field == "os"
    assert upload(database, settings, b"raw", description=Description("demo", "x86_64", "1.0"))


def test_an_image_may_say_its_architecture_in_another_spelling(database: Database, settings: Settings) -> None:
    content = image_bytes("1.0", arch="x86_64")
    assert found(database, upload(database, settings, content, description=Description(arch="amd64"))).arch == "amd64"


def test_a_good_signature_is_kept(database: Database, settings: Settings) -> None:
    signer = Signer().known_to(settings)
    image = found(database, upload(database, settings, description=Description(signature=signer.sign(CONTENT))))
    assert image.key_id == signer.key_id
    state = signature_state(image.name, image.digest, image.size, image.signed, known_keys(settings))
    assert state is SignatureState.VERIFIED


def test_a_forged_signature_is_refused(database: Database, settings: Settings) -> None:
    signer = Signer().known_to(settings)
    for forged in (
        signer.sign(CONTENT + b"x"),
        signer.sign(CONTENT, image_name("demo", "amd64", "9.9")),
        signer.sign(CONTENT, image_name("demo", "arm64", "1.0")),
    ):
        error = refused(database, settings, Invalid, description=Description(signature=forged))
        assert isinstance(error, Invalid)
        assert error.field == "signature"


def test_a_signature_by_a_key_that_the_server_does_not_know_is_refused(database: Database, settings: Settings) -> None:
    Signer().known_to(settings)
    stranger = Signer()
    error = refused(database, settings, Invalid, description=Description(signature=stranger.sign(CONTENT)))
    assert stranger.key_id in error.text


def test_without_keys_the_server_leaves_signatures_to_the_nodes(database: Database, settings: Settings) -> None:
    signer = Signer()
    image = found(database, upload(database, settings, description=Description(signature=signer.sign(CONTENT))))
    assert signature_state(image.name, image.digest, image.size, image.signed, {}) is SignatureState.UNKNOWN_KEY


def test_a_signature_can_be_added_later(database: Database, settings: Settings) -> None:
    signer = Signer().known_to(settings)
    image_id = upload(database, settings)
    with pytest.raises(Invalid):
        attach_signature(database, settings, OPERATOR, image_id, Signer().sign(CONTENT), "", NOW)
    attach_signature(database, settings, OPERATOR, image_id, signer.sign(CONTENT), "signed now", NOW)
    assert found(database, image_id).signed == signer.sign(CONTENT)
    with pytest.raises(NotFound):
        attach_signature(database, settings, OPERATOR, "img_none", signer.sign(CONTENT), "", NOW)


def test_uploading_again_with_a_signature_adds_it(database: Database, settings: Settings) -> None:
    signer = Signer()
    image_id = upload(database, settings)
    assert upload(database, settings, description=Description(signature=signer.sign(CONTENT))) == image_id
    assert found(database, image_id).key_id == signer.key_id
    assert upload(database, settings) == image_id
    assert found(database, image_id).key_id == signer.key_id  # an upload without one takes none away


def test_a_broken_key_file_is_named(settings: Settings) -> None:
    folder = settings.data_dir / "image-keys"
    folder.mkdir(parents=True)
    (folder / "bad.pub").write_text("ed25519:short")
    with pytest.raises(Misconfigured, match=r"bad\.pub"):
        known_keys(settings)


@pytest.mark.parametrize("text", ["rubbish", "twinroot-image-signature.v1 xyz abc", "twinroot-image-signature.v1"])
def test_what_is_no_signature_file_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as error:
        signature_of(text)
    assert error.value.field == "signature"


def test_a_signature_file_is_read_as_written() -> None:
    signature = Signer().sign(CONTENT)
    assert signature_of(signature_line(signature)) == signature
    assert signature_of(" \n") is None


def test_an_image_elsewhere_is_registered_and_may_be_uploaded_later(database: Database, settings: Settings) -> None:
    image_id = registered(database, settings)
    image = found(database, image_id)
    assert (image.stored, image.url) == (False, "https://images.example/1.0")
    assert registered(database, settings) == image_id
    assert upload(database, settings) == image_id
    assert found(database, image_id).stored


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("digest", {"digest": "sha256:xyz"}),
        ("size", {"size": 0}),
        ("url", {"url": "file:///etc/passwd"}),
        ("url", {"url": "https://"}),
        ("url", {"url": "http://[::1"}),
        ("url", {"url": "https://images.example/" + "x" * 2048}),
        ("version", {"description": Description("demo", "amd64", "")}),
        ("notes", {"description": Description("demo", "amd64", "1.0", "x" * 10_001)}),
    ],
)
def test_a_registration_with_bad_input_changes_nothing(
    database: Database, settings: Settings, field: str, given: dict[str, Any]
) -> None:
    with pytest.raises(Invalid) as error:
        registered(database, settings, **given)
    assert error.value.field == field
    assert count_rows(database, schema.images) == 0
    assert count_rows(database, schema.audit) == 0


def test_each_image_has_one_audit_entry_with_its_author(database: Database, settings: Settings) -> None:
    upload(database, settings, reason="the new kernel")
    upload(database, settings)
    with database.read() as conn:
        entries = conn.execute(select(schema.audit.c.action, schema.audit.c.actor_name, schema.audit.c.reason)).all()
    assert [tuple(entry) for entry in entries] == [("image.upload", "mb", "the new kernel")]


def test_adoption_counts_nodes_that_are_not_retired(database: Database) -> None:
    with database.write() as change:
        for admission in ("admitted", "admitted", "retired"):
            add_node(change.conn, version="1.0", admission=admission)
        add_node(change.conn, version="2.0")
    with database.read() as conn:
        assert store.adoption(conn) == {("demo", "amd64", "1.0"): 2, ("demo", "amd64", "2.0"): 1}


def test_leftovers_of_a_killed_upload_are_removed_by_a_later_one(database: Database, settings: Settings) -> None:
    incoming = settings.data_dir / "images" / "incoming"
    incoming.mkdir(parents=True)
    (incoming / "dead").write_bytes(b"half")
    upload(database, settings, now=(incoming / "dead").stat().st_mtime + 2 * 86_400)
    assert not (incoming / "dead").exists()


def test_an_upload_under_way_is_left_alone(database: Database, settings: Settings) -> None:
    incoming = settings.data_dir / "images" / "incoming"
    incoming.mkdir(parents=True)
    (incoming / "other").write_bytes(b"half")
    upload(database, settings, now=(incoming / "other").stat().st_mtime + 3600)
    assert (incoming / "other").exists()
