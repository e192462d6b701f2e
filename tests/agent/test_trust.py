from __future__ import annotations

import msgspec
import pytest

from agent.trust import TrustCode, TrustError, check_image, load_image_keys
from wire.identity import image_statement, key_id, new_private_key, public_key, sign
from wire.messages import Image

PRIVATE = new_private_key()
PUBLIC = public_key(PRIVATE)
KEYS = {key_id(PUBLIC): PUBLIC}
DIGEST = "sha256:" + "a" * 64
STATEMENT = image_statement("demo-os", "amd64", "2.0", DIGEST, 1000)
IMAGE = Image(
    os="demo-os",
    arch="amd64",
    version="2.0",
    digest=DIGEST,
    size=1000,
    signature=sign(PRIVATE, STATEMENT),
    key_id=key_id(PUBLIC),
)


def code_of(image: Image, keys: dict[str, str]) -> TrustCode:
    with pytest.raises(TrustError) as refusal:
        check_image(image, keys)
    assert refusal.value.text
    return refusal.value.code


def test_a_signed_image_is_trusted() -> None:
    check_image(IMAGE, KEYS)
    check_image(msgspec.structs.replace(IMAGE, url="https://elsewhere/"), KEYS)


@pytest.mark.parametrize(
    "change",
    [
        {"os": "other-os"},
        {"arch": "arm64"},
        {"version": "2.1"},
        {"digest": "sha256:" + "b" * 64},
        {"size": 1001},
        {"signature": sign(new_private_key(), STATEMENT)},
        {"signature": "not base64url!"},
        {"signature": "ä"},
        {"version": "2.0\n"},
    ],
)
def test_the_signature_covers_what_the_image_is(change: dict[str, object]) -> None:
    assert code_of(msgspec.structs.replace(IMAGE, **change), KEYS) is TrustCode.BAD_SIGNATURE


def test_no_keys_unsigned_and_foreign_keys() -> None:
    assert code_of(IMAGE, {}) is TrustCode.NO_KEYS
    assert code_of(msgspec.structs.replace(IMAGE, signature=""), KEYS) is TrustCode.UNSIGNED
    foreign = public_key(new_private_key())
    assert code_of(IMAGE, {key_id(foreign): foreign}) is TrustCode.UNKNOWN_KEY
    assert code_of(msgspec.structs.replace(IMAGE, key_id=""), KEYS) is TrustCode.UNKNOWN_KEY


def test_keys_are_read_by_id(tmp_path) -> None:
    other = public_key(new_private_key())
    (tmp_path / "build.pub").write_text(f"ed25519:{PUBLIC} build server, 2030\n")
    (tmp_path / "spare.pub").write_text(f"ed25519:{other}")
    (tmp_path / "readme.txt").write_text("not a key")
    assert load_image_keys(tmp_path) == {key_id(PUBLIC): PUBLIC, key_id(other): other}


def test_no_folder_means_no_keys(tmp_path) -> None:
    assert load_image_keys(tmp_path / "none") == {}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"KEY",
        b"ed25519:",
        b"ed25519:AAAA comment",
        b"ed25519:!!!!",
        b"rsa:KEY",
        b"ed25519:KEY\ned25519:KEY\n",
        b"\xff\xfe",
    ],
)
def test_a_malformed_key_file_is_named(tmp_path, content: bytes) -> None:
    (tmp_path / "broken.pub").write_bytes(content.replace(b"KEY", PUBLIC.encode()))
    with pytest.raises(TrustError) as refusal:
        load_image_keys(tmp_path)
    assert refusal.value.code is TrustCode.BAD_KEY_FILE
    assert "broken.pub" in refusal.value.text
