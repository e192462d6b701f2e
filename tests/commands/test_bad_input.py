"""Commands that cannot do what they are asked: one clear line on stderr, a non-zero exit, nothing left behind."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from app.store import schema
from app.store.database import open_database
from app.store.migrate import migrate
from tests.server_kit import count_rows


def twinroot(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("TWINROOT_")}
    given = {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    given |= {f"TWINROOT_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "app.cli", *arguments]
    return subprocess.run(command, cwd=folder, env=own | given, capture_output=True, text=True, timeout=120)


ABSENT = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
"""A database on a port that nobody listens on."""


@pytest.mark.parametrize("command", [["up"], ["doctor"], ["image", "upload"]])
def test_help_needs_nothing_and_leaves_nothing(tmp_path: Path, command: list[str]) -> None:
    done = twinroot(tmp_path, *command, "--help", HTTP="nonsense", DATABASE_URL="nonsense")
    assert done.returncode == 0 and "Usage:" in done.stdout and done.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "settings", "says"),
    [
        (["no-such-command"], {}, "no-such-command"),
        (["image", "upload", "missing.img"], {}, "missing.img"),
        (["image", "register", "--os", "demo"], {}, "--arch"),
        (["doctor", "x"], {}, "extra argument (x). See "),
        (["channel", "list"], ABSENT | {"SECRET_KEY": "a secret of its own"}, "cannot be reached"),
        (["channel", "list"], ABSENT, "TWINROOT_DATA_DIR: there is no "),
        (["channel", "list"], {"DATABASE_URL": "sqlite:////none/at/all.db"}, "TWINROOT_DATABASE_URL: there is no "),
        (["channel", "list"], {}, "TWINROOT_DATA_DIR: no database in "),
        (["group", "list"], {}, "twinroot migrate"),
        (["server-key", "show"], {}, "TWINROOT_DATA_DIR"),
        (["doctor"], {}, "TWINROOT_DATA_DIR"),
        (["migrate"], {"DATABASE_URL": "sqlite:////proc/twinroot.db"}, "cannot be reached"),
        (["up"], {"HTTP": "nonsense"}, "TWINROOT_HTTP"),
        (["plan", "--save", "saved.json"], {}, "TWINROOT_DATA_DIR"),
        (["web"], {"HTTP": "192.0.2.1:80"}, "TWINROOT_HTTP"),
    ],
)
def test_one_clear_line(tmp_path: Path, command: list[str], settings: dict[str, str], says: str) -> None:
    done = twinroot(tmp_path, *command, **settings)
    assert done.returncode not in (0, -11)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and says in done.stderr, done.stderr
    assert command[0] in ("web", "migrate") or list(tmp_path.iterdir()) == [], (
        "reading, and what is refused, makes no folder"
    )


def test_a_database_without_tables_says_how_to_get_them(tmp_path: Path) -> None:
    (tmp_path / "twinroot.db").touch()
    done = twinroot(tmp_path, "channel", "list", DATA_DIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (1, "twinroot: The database has no tables yet: run twinroot migrate.\n")
    assert (
        "soak_s=long"
        in twinroot(tmp_path, "policy", "set", "soak_s=long", "--reason", "x", DATA_DIR=str(tmp_path)).stderr
    )


def test_the_doctor_says_what_is_wrong(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'twinroot.db'}"
    migrate(url)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        used = f"127.0.0.1:{taken.getsockname()[1]}"
        done = twinroot(
            tmp_path, "doctor", DATABASE_URL=url, HTTP=used, GATEWAY="192.0.2.1:8090", AGENT_URL="ws://fleet.example/agent",
            SECRET_KEY="short", DATA_DIR=str(tmp_path),
        )  # fmt: skip
    lines = {line[6:].partition(":")[0]: line for line in done.stdout.splitlines()}
    assert done.returncode == 1
    assert lines["database"].startswith("ok")
    assert lines["web address"].startswith("ok") and "in use" in lines["web address"]
    assert lines["gateway address"].startswith("WRONG")
    assert lines["encryption"].startswith("WRONG") and "wss://" in lines["encryption"]
    assert lines["secret"].startswith("WRONG")


def test_the_doctor_notices_another_secret(tmp_path: Path) -> None:
    migrate(f"sqlite:///{tmp_path / 'twinroot.db'}")
    data = str(tmp_path)
    first, second = "the first of two secrets", "the second of two secrets"
    assert twinroot(tmp_path, "server-key", "show", DATA_DIR=data, SECRET_KEY=first).returncode == 0
    assert "ok    secret" in twinroot(tmp_path, "doctor", DATA_DIR=data, SECRET_KEY=first).stdout
    assert "WRONG secret" in twinroot(tmp_path, "doctor", DATA_DIR=data, SECRET_KEY=second).stdout


def test_commands_beside_each_other_and_a_writer_lose_nothing(tmp_path: Path) -> None:
    """SQLite has one writer: the others wait for it, however many processes they are."""
    url = f"sqlite:///{tmp_path / 'twinroot.db'}"
    migrate(url)
    done: list[subprocess.CompletedProcess[str]] = []

    def run(number: int) -> None:
        arguments = ("channel", "create", f"channel-{number}", "--reason", "all at once")
        done.append(twinroot(tmp_path, *arguments, DATA_DIR=str(tmp_path)))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    with closing(open_database(url)) as db:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            with db.write() as change:
                change.touch("nodes")
        assert [one.stderr for one in done] == [""] * 6
        assert count_rows(db, schema.channels) == count_rows(db, schema.audit) == 6
