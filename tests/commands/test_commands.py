"""The commands as people call them: real processes on a real folder."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from app.services.channels import ensure_defaults
from app.services.fleet import ensure_fleet
from app.store import server_keys
from app.store.database import open_database
from app.store.migrate import migrate
from tests.server_kit import NOW, add_node
from tests.services.image_kit import image_bytes
from wire import identity
from wire.image_keys import parse_public_key


class Twinroot:
    """`twinroot …` in a folder of its own, on a fresh SQLite database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder / 'data' / 'twinroot.db'}"
        migrate(self.url)
        db = open_database(self.url)
        ensure_fleet(db, NOW)
        ensure_defaults(db, NOW)
        db.close()
        own = {name: value for name, value in os.environ.items() if not name.startswith("TWINROOT_")}
        self._environ = {**own, "TWINROOT_DATA_DIR": str(folder / "data")}

    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "app.cli", *map(str, arguments)],
            cwd=self.folder,
            env={**self._environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def ok(self, *arguments: str | Path) -> str:
        done = self(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, *arguments: str | Path) -> str:
        """What it says: one line on stderr, nothing on stdout."""
        done = self(*arguments)
        assert done.returncode != 0
        assert done.stdout == ""
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        return done.stderr


@pytest.fixture
def twinroot(tmp_path: Path) -> Twinroot:
    (tmp_path / "data").mkdir()
    (tmp_path / "demo.img").write_bytes(image_bytes("1.0"))
    return Twinroot(tmp_path)


def test_a_login_link_is_printed(twinroot: Twinroot) -> None:
    said = twinroot.ok("login-link", "--name", "mb")
    assert re.fullmatch(r"http://127\.0\.0\.1:8080/sign-in/[\w-]{43}\n", said)


def test_an_image_is_signed_verified_uploaded_and_promoted(twinroot: Twinroot) -> None:
    public = twinroot.ok("image", "keygen", "key", "--comment", "the release key")
    (twinroot.folder / "release.pub").write_text(public)
    key_id = identity.key_id(parse_public_key(public))
    assert stat.S_IMODE((twinroot.folder / "key").stat().st_mode) == 0o600
    assert key_id in twinroot.ok("image", "sign", "--key", "key", "demo.img")
    assert "good signature" in twinroot.ok("image", "verify", "--key", "release.pub", "demo.img")
    image_id = twinroot.ok("image", "upload", "demo.img", "--reason", "first").strip()
    listed = twinroot.ok("image", "list").splitlines()[1].split()
    assert listed[:4] == [image_id, "demo", "amd64", "1.0"]
    assert key_id in listed
    names = ("--os", "demo", "--arch", "amd64", "--version", "1.0")
    twinroot.ok("channel", "promote", "stable", *names, "--reason", "good")
    assert re.search(r"^stable +demo +amd64 +1\.0 ", twinroot.ok("channel", "list"), re.MULTILINE)


def test_a_changed_image_does_not_verify(twinroot: Twinroot) -> None:
    (twinroot.folder / "release.pub").write_text(twinroot.ok("image", "keygen", "key"))
    twinroot.ok("image", "sign", "--key", "key", "demo.img")
    (twinroot.folder / "demo.img").write_bytes(image_bytes("1.0", payload=b"changed"))
    assert "does not hold" in twinroot.refused("image", "verify", "--key", "release.pub", "demo.img")
    (twinroot.folder / "data" / "image-keys").mkdir()
    (twinroot.folder / "release.pub").rename(twinroot.folder / "data" / "image-keys" / "release.pub")
    assert "The signature is not by key" in twinroot.refused("image", "upload", "demo.img")


def test_a_file_that_is_no_key_or_signature_is_named(twinroot: Twinroot) -> None:
    (twinroot.folder / "notes.md").write_text("# no key\n")
    assert "notes.md: a key file is one line" in twinroot.refused("image", "verify", "--key", "notes.md", "demo.img")
    (twinroot.folder / "release.pub").write_text(twinroot.ok("image", "keygen", "key"))
    said = twinroot.refused("image", "verify", "--key", "release.pub", "demo.img", "notes.md")
    assert "notes.md: a signature is one line" in said


def test_a_key_is_never_overwritten(twinroot: Twinroot) -> None:
    twinroot.ok("image", "keygen", "key")
    before = (twinroot.folder / "key").read_text()
    assert "exists already" in twinroot.refused("image", "keygen", "key")
    assert (twinroot.folder / "key").read_text() == before


def test_an_image_can_be_signed_after_its_upload(twinroot: Twinroot) -> None:
    image_id = twinroot.ok("image", "upload", "demo.img").strip()
    twinroot.ok("image", "keygen", "key")
    twinroot.ok("image", "sign", "--key", "key", "demo.img")
    assert "is signed by key" in twinroot.ok("image", "attach-signature", image_id, "demo.img.sig")


def test_an_image_elsewhere_is_registered(twinroot: Twinroot) -> None:
    names = ("--os", "demo", "--arch", "amd64", "--version", "2.0")
    content = ("--url", "https://images.example/2", "--digest", "ab" * 32, "--size", "10")
    image_id = twinroot.ok("image", "register", *names, *content).strip()
    assert image_id in twinroot.ok("image", "list")
    other = ("--url", "https://images.example/2", "--digest", "cd" * 32, "--size", "10")
    assert "exists already with other content" in twinroot.refused("image", "register", *names, *other)


def test_a_join_token_prints_the_command_and_is_listed_and_revoked(twinroot: Twinroot) -> None:
    options = ("--uses", "3", "--channel", "stable", "--admit", "--label", "zone=a", "--network", "10.0.0.0/8")
    command = twinroot.ok("join-token", "create", *options)
    found = re.fullmatch(
        r"twinroot-agent join ws://127\.0\.0\.1:8090/agent (trj_[\w-]{43}) --fingerprint sha256:[0-9a-f]{64}\n", command
    )
    assert found
    row = twinroot.ok("join-token", "list").splitlines()[1].split()
    assert row[1:3] == ["usable", "3/3"]
    assert "zone=a" in row
    assert "10.0.0.0/8" in row
    twinroot.ok("join-token", "revoke", row[0], "--reason", "leaked")
    assert "revoked" in twinroot.ok("join-token", "list")
    assert "was revoked already" in twinroot.refused("join-token", "revoke", row[0])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("join-token", "create", "--network", "10.0.0.1/8"), "is no network"),
        (("join-token", "create", "--label", "zone"), "is no label"),
        (("join-token", "create", "--expires", "soon"), "is no duration"),
        (("join-token", "create", "--channel", "none"), "There is no channel “none”"),
        (("join-token", "revoke", "join_none"), "There is no join token"),
        (("login-link", "--name", ""), "A name for the sign-in"),
        (("image", "upload", "demo.img", "--version", "2"), "The image itself says version 1.0"),
        (("image", "upload", "demo.img", "--to", "http://127.0.0.1:1/nonsense"), "is no sign-in link"),
        (("image", "upload", "demo.img", "--to", "http://127.0.0.1:1/sign-in/x"), "did not answer"),
        (("image", "sign", "--key", "demo.img", "demo.img"), "is no private image key"),
        (("image", "verify", "--key", "demo.img", "demo.img", "demo.img"), "a key file is one line"),
        (
            ("channel", "promote", "stable", "--os", "demo", "--arch", "amd64", "--version", "9", "--reason", "x"),
            "There is no image “demo 9 for amd64”",
        ),
        (
            ("channel", "promote", "none", "--os", "demo", "--arch", "amd64", "--version", "9", "--reason", "x"),
            "There is no channel “none”",
        ),
        (("channel", "create", "No Name"), "is no channel name"),
        (("server-key", "retire", "0" * 64, "--reason", "x"), "There is no server key"),
        (("server-key", "retire", "sha256:00", "--reason", "x"), "at least 8 hex digits"),
    ],
)
def test_failures_are_one_line(twinroot: Twinroot, arguments: tuple[str, ...], said: str) -> None:
    assert said in twinroot.refused(*arguments)


def test_the_servers_key_is_rotated_and_the_old_one_retired(twinroot: Twinroot) -> None:
    [heads, first] = twinroot.ok("server-key", "show").splitlines()
    old = first.split()[0]
    assert heads.split() == ["FINGERPRINT", "STATE", "MADE", "NODES"]
    assert first.split()[1:2] + first.split()[3:] == ["newest", "0"]
    new = twinroot.ok("server-key", "rotate", "--reason", "yearly").strip()
    assert new != old
    assert f"--fingerprint {new}" in twinroot.ok("join-token", "create")
    states = [row.split()[:2] for row in twinroot.ok("server-key", "show").splitlines()[1:]]
    assert states == [[old, "accepted"], [new, "newest"]]
    assert "make a new one first" in twinroot.refused("server-key", "retire", new, "--reason", "oops")
    with closing(open_database(twinroot.url)) as db, db.write() as change:
        [first_key] = [key for key in server_keys.live(change.conn) if identity.fingerprint(key.public_key) == old]
        add_node(change.conn, "cellar", server_key=first_key.public_key)
    assert "1 node still pins this key" in twinroot.refused("server-key", "retire", old, "--reason", "yearly")
    said = twinroot.ok("server-key", "retire", old[:20], "--force", "--reason", "yearly")
    assert "have to join again: cellar" in said
    assert re.search(rf"^{old} +retired ", twinroot.ok("server-key", "show"), re.MULTILINE)
