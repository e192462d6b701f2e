"""Another key of the server: taken when the pinned one signed for it, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.phases.inputs import Noted
from agent.pinning import ServerKeyNamed, take_key
from agent.state import Identity, StateFolder
from wire import identity

OLD, NEW = (identity.public_key(identity.encode(bytes([number]) * 32)) for number in (1, 5))
WHO = Identity(
    private_key="secret",
    url="ws://127.0.0.1/agent",
    fingerprint=identity.fingerprint(OLD),
    machine_id="m",
    hardware="h",
    node_id="n",
    server_key=OLD,
)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[StateFolder]:
    opened = StateFolder(tmp_path / "state")
    opened.open()
    opened.write_identity(WHO)
    yield opened
    opened.close()


def take(folder: StateFolder, key: str, *, holds: bool) -> tuple[Identity, Noted | None]:
    return asyncio.run(take_key(folder, WHO, ServerKeyNamed(key=key, holds=holds)))


def test_it_is_on_disk_before_it_is_used_and_the_old_one_is_kept(folder: StateFolder) -> None:
    after, noted = take(folder, NEW, holds=True)
    assert after == msgspec.structs.replace(WHO, server_key=NEW, replaced_server_key=OLD)
    assert folder.read_identity() == after
    assert noted is not None and noted.kind == "server-key-changed"
    assert identity.fingerprint(NEW) in noted.text and identity.fingerprint(OLD) in noted.text
    assert folder.identity_file.stat().st_mode & 0o777 == 0o600


def test_without_the_signature_nothing_changes_and_it_is_told(folder: StateFolder) -> None:
    after, noted = take(folder, NEW, holds=False)
    assert after == WHO == folder.read_identity()
    assert noted is not None and noted.kind == "server-key-refused" and "did not sign" in noted.text


def test_the_pinned_key_itself_is_no_news(folder: StateFolder) -> None:
    assert take(folder, OLD, holds=True) == (WHO, None)


def test_a_disk_that_does_not_take_it_leaves_the_old_pin(folder: StateFolder) -> None:
    folder.identity_file.with_name("identity.json.new").mkdir()  # nothing can be written there, by root neither
    (folder.identity_file.with_name("identity.json.new") / "full").touch()
    with pytest.raises(OSError, match="directory"):
        folder.write_identity(WHO)
    after, noted = take(folder, NEW, holds=True)
    assert after == WHO == folder.read_identity()
    assert noted is not None and noted.kind == "server-key-refused" and "cannot be written" in noted.text
