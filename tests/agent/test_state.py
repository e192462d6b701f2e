"""Identity and state on disk."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.errors import StateError
from agent.phases.model import Booted, Rounds, State, Step, durable, forget_server
from agent.state import Identity, StateFolder, require_same_machine, write_atomically
from wire.messages import HealthState, Order

WHO = Identity(
    private_key="secret",
    url="ws://127.0.0.1/agent",
    fingerprint="sha256:0",
    machine_id="m",
    hardware="h",
    node_id="n",
    server_key="k",
)
SOME = State(step=Step.IDLE, newest=Order(2, 7), boot_id="b", booted=Booted(slot="a", confirmed=True))


@pytest.fixture
def folder(tmp_path: Path):
    opened = StateFolder(tmp_path / "state")
    opened.open()
    yield opened
    opened.close()


def test_what_is_written_is_read(folder: StateFolder) -> None:
    assert folder.read_identity() is None and folder.read_state() is None
    folder.write_identity(WHO)
    folder.write_state(SOME)
    assert folder.read_identity() == WHO and folder.read_state() == SOME


def test_modes(folder: StateFolder) -> None:
    folder.write_identity(WHO)
    assert folder.folder.stat().st_mode & 0o777 == 0o700
    assert folder.identity_file.stat().st_mode & 0o777 == 0o600


def test_the_private_key_is_not_in_the_repr() -> None:
    assert "secret" not in repr(WHO)


def test_two_agents_cannot_share_it(folder: StateFolder) -> None:
    with pytest.raises(StateError, match="in use by another agent"):
        StateFolder(folder.folder).open()
    folder.close()
    again = StateFolder(folder.folder)
    again.open()
    again.close()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"format": 1}', b"\xff\xfe", b'{"format":1,"state":{"step":"x"}}']
)
def test_a_damaged_state_is_named_and_kept(folder: StateFolder, content: bytes) -> None:
    folder.state_file.write_bytes(content)
    with pytest.raises(StateError, match=r"state\.json is damaged .*join again"):
        folder.read_state()
    assert folder.state_file.read_bytes() == content


def test_a_newer_format_is_refused(folder: StateFolder) -> None:
    folder.state_file.write_text('{"format": 2, "state": {}}')
    with pytest.raises(StateError, match="format 2"):
        folder.read_state()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="file/state"):
        StateFolder(tmp_path / "file" / "state").open()


def test_another_machine_is_refused() -> None:
    require_same_machine(WHO, "m", "h")
    with pytest.raises(StateError, match=r"another machine \(machine id differs\); join again"):
        require_same_machine(WHO, "x", "h")
    with pytest.raises(StateError, match="hardware differs"):
        require_same_machine(WHO, "m", "x")


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """A real limit on file size, in a process of its own."""
    folder = StateFolder(tmp_path)
    folder.write_state(SOME)
    before = folder.state_file.read_bytes()
    script = f"""
import errno, signal
from pathlib import Path
from agent.state import write_atomically
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    write_atomically(Path({str(folder.state_file)!r}), b"x" * 100000)
except OSError as problem:
    assert problem.errno == errno.EFBIG, problem
else:
    raise SystemExit("the limit did not hold")
"""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    subprocess.run([sys.executable, "-c", script], check=True, preexec_fn=limit, cwd=Path(__file__).parents[2])
    assert folder.state_file.read_bytes() == before
    assert not list(tmp_path.glob("*.new"))


def test_killed_while_writing_there_is_one_whole_file(tmp_path: Path) -> None:
    target = tmp_path / "state.json"
    script = f"""
from pathlib import Path
from agent.state import write_atomically
while True:
    for letter in (b"a", b"b"):
        write_atomically(Path({str(target)!r}), letter * 50000)
"""
    for _ in range(5):
        writer = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
        try:
            end = time.monotonic() + 10
            while not target.exists():
                assert time.monotonic() < end and writer.poll() is None, "the writer never wrote"
                time.sleep(0.01)
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        content = target.read_bytes()
        assert content in (b"a" * 50000, b"b" * 50000)
        target.unlink()


def test_write_atomically_replaces(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomically(path, b"1", mode=0o644)
    write_atomically(path, b"2", mode=0o644)
    assert path.read_bytes() == b"2" and path.stat().st_mode & 0o777 == 0o644


def test_what_each_start_sees_anew_is_not_on_disk() -> None:
    volatile = State(linked=True, inhibitors=["x"], rounds=Rounds(number=3, state=HealthState.HEALTHY))
    assert durable(volatile) == State()


def test_joining_again_forgets_the_server_and_keeps_the_slots() -> None:
    kept = forget_server(SOME)
    assert kept.newest is None and kept.booted == SOME.booted and kept.boot_id == "b"


def test_what_a_newer_agent_wrote_is_not_called_damaged(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    folder.state_file.write_text('{"format": 2, "state": {"step": "dancing", "slots": 7}}')
    with pytest.raises(StateError, match="has format 2, this agent knows 1: use the agent that wrote it"):
        folder.read_state()


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"[]", b'{"format": 1}', b"\xff\xfe", b'{"format": "1"}'])
def test_a_damaged_state_is_never_an_empty_one(tmp_path: Path, content: bytes) -> None:
    folder = StateFolder(tmp_path)
    folder.state_file.write_bytes(content)
    with pytest.raises(StateError, match="damaged"):
        folder.read_state()


def test_a_folder_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: to give a folder away")
    (tmp_path / "state").mkdir()
    os.chown(tmp_path / "state", 12345, 12345)
    with pytest.raises(StateError, match="belongs to user id 12345"):
        StateFolder(tmp_path / "state").open()
