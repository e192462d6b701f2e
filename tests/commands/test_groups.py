"""Groups and freezes by command; in this process, except for one that shows that they are mounted."""

from __future__ import annotations

import shlex
from contextlib import closing
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from app.commands.groups import freeze, group, thaw
from app.core.errors import TwinrootError
from app.services.channels import ensure_defaults
from app.services.fleet import ensure_fleet
from app.store import schema
from app.store.database import open_database
from tests.commands.test_commands import Twinroot
from tests.server_kit import NOW, add_node, add_operation, count_rows, digest_of, two_slots

COMMANDS: dict[str, click.Command] = {"group": group, "freeze": freeze, "thaw": thaw}


class Here:
    """`twinroot …` without a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._environ = {
            "TWINROOT_DATA_DIR": str(folder),
            "TWINROOT_DATABASE_URL": f"sqlite:///{folder / 'twinroot.db'}",
        }

    def ok(self, command: str, *arguments: str) -> str:
        done = CliRunner().invoke(COMMANDS[command], arguments, env=self._environ, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    def refused(self, command: str, *arguments: str) -> str:
        done = CliRunner().invoke(COMMANDS[command], arguments, env=self._environ)
        assert done.exit_code != 0 and done.stdout == ""
        return done.exception.text if isinstance(done.exception, TwinrootError) else done.stderr


@pytest.fixture
def twinroot(tmp_path: Path, sqlite_template: Path) -> Here:
    (tmp_path / "twinroot.db").write_bytes(sqlite_template.read_bytes())
    db = open_database(f"sqlite:///{tmp_path / 'twinroot.db'}")
    ensure_fleet(db, NOW)
    ensure_defaults(db, NOW)
    db.close()
    return Here(tmp_path)


def fields(shown: str) -> dict[str, str]:
    """As a shell would read what `group show` prints."""
    return dict(part.split("=", 1) for part in shlex.split(shown, comments=True))


def test_a_group_is_made_shown_changed_and_removed(twinroot: Here) -> None:
    windows = "mon-fri 22:00-04:00 Europe/Berlin\nsat 00:00-00:00 UTC"
    gate = "errors http://prometheus.example:9090 sum(x) < bool 3"
    policy = ("soak_s=30m", "canaries=5%", f"windows={windows}", f"prometheus={gate}")
    twinroot.ok("group", "add", "edge", *policy, "--selector", "zone=a,!lab", "--channel", "beta", "--reason", "new")
    assert twinroot.ok("group", "list").splitlines()[1].split()[:6] == ["edge", "zone=a,", "!lab", "0", "beta", "0"]
    shown = twinroot.ok("group", "show", "edge")
    said = fields(shown)
    assert (said["soak_s"], said["canaries"], said["confirm_s"]) == ("30m", "5%", "10m")
    assert (said["windows"], said["prometheus"]) == (windows, gate)
    assert shown.count("# open 20") == 5
    twinroot.ok("group", "set", "edge", "soak_s=", "--channel", "", "--rename", "core", "--reason", "x")
    assert fields(twinroot.ok("group", "show", "core"))["soak_s"] == "10m"
    everything = [f"{name}={text}" for name, text in said.items()]
    twinroot.ok("group", "add", "twin", *everything, "--selector", "*", "--reason", "the same again")
    assert fields(twinroot.ok("group", "show", "twin")) == said
    twinroot.ok("group", "remove", "core", "--reason", "x")
    assert "no group" in twinroot.refused("group", "show", "core")


def test_what_a_group_cannot_be(twinroot: Here) -> None:
    why = ("--reason", "x")
    assert "selects nothing" in twinroot.refused("group", "add", "edge", "--selector", " ", *why)
    assert "FIELD=VALUE" in twinroot.refused("group", "add", "edge", "soak", "--selector", "*", *why)
    windows = "windows=sat 01:00-02:00 Mars/Base"
    assert "no time zone" in twinroot.refused("group", "add", "edge", windows, "--selector", "*", *why)
    assert "--selector" in twinroot.refused("group", "add", "edge", *why)
    assert "no group" in twinroot.refused("group", "set", "edge", "soak_s=1", *why)
    assert len(twinroot.ok("group", "list").splitlines()) == 1


def test_freeze_and_thaw(twinroot: Here) -> None:
    twinroot.ok("group", "add", "edge", "--selector", "*", "--reason", "new")
    assert "does not say its zone" in twinroot.refused("freeze", "--until", "2999-01-01T00:00", "--reason", "x")
    assert "within a year" in twinroot.refused("freeze", "--until", "2999-01-01T00:00Z", "--reason", "x")
    assert "no time such as" in twinroot.refused("freeze", "--until", "tomorrow", "--reason", "x")
    assert "not frozen" in twinroot.refused("thaw", "--reason", "x")
    twinroot.ok("freeze", "--reason", "Black Friday")
    twinroot.ok("freeze", "--group", "edge", "--reason", "audit")
    assert twinroot.ok("group", "list").split()[-1] == "frozen"
    twinroot.ok("thaw", "--reason", "over")
    assert twinroot.ok("group", "list").split()[-1] == "frozen"
    twinroot.ok("thaw", "--group", "edge", "--reason", "over")
    assert twinroot.ok("group", "list").split()[-1] == "open"


def test_they_are_mounted(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    said = Twinroot(tmp_path).ok("--help")
    assert all(f"\n  {command} " in said for command in COMMANDS)


def test_a_group_is_rolled_back_and_said_before(twinroot: Here, tmp_path: Path) -> None:
    twinroot.ok("group", "add", "web", "--selector", "role=web", "--reason", "new")
    nothing = twinroot.refused("group", "roll-back", "web", "--reason", "bad week")
    assert "No node of group web runs what an update brought it to" in nothing
    with closing(open_database(f"sqlite:///{tmp_path / 'twinroot.db'}")) as db:
        with db.write() as change:
            slots = two_slots("2.0", "1.0", passive_good=True)
            now = {"version": "2.0", "booted_digest": digest_of("2.0"), "slots": slots, "labels": {"role": "web"}}
            node_id = add_node(change.conn, "web-1", **now)
            add_operation(change.conn, node_id, state="ended", result="succeeded", ended_at=NOW)
        before = twinroot.ok("group", "roll-back", "web", "--dry-run", "--reason", "bad week")
        assert before == "1 from 2.0 back to 1.0 (1 from their slot)\n"
        assert count_rows(db, schema.rollouts) == 0
        done = twinroot.ok("group", "roll-back", "web", "--reason", "bad week")
        assert done == before + "Rollout 1 sends them back.\n"
        assert count_rows(db, schema.rollouts) == 1
    assert "already" in twinroot.refused("group", "roll-back", "web", "--reason", "again")
