"""The agent's own memory on disk: who it is and where its phase machine stands.

`identity.json` (0600) and `state.json` in a folder of mode 0700, both replaced atomically and synced. A file
that cannot be read is an error and never an occasion to begin anew: the newest order and what was expected of
the next boot would be lost with it (rules 1 and 8).
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TypeVar

import msgspec

from agent.errors import StateError
from agent.phases.model import State, durable

FORMAT = 1
"""Of state.json; raised when an older agent must not go on with a newer file."""

T = TypeVar("T")


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who this node is; while it joins without node id and server key."""

    private_key: str
    url: str
    fingerprint: str
    """Of the server's key, as the join command named it."""
    machine_id: str
    hardware: str
    node_id: str = ""
    server_key: str = ""
    """Pinned at join, or named later by the key that was pinned then (see agent.pinning)."""
    replaced_server_key: str = ""
    """The one before. Nothing reads it: a person may put it back where the server was restored from a backup that
    is older than its new key."""
    name: str = ""

    def __repr__(self) -> str:
        return f"Identity(node_id={self.node_id!r}, url={self.url!r})"  # never the private key


class Stamp(msgspec.Struct, frozen=True, kw_only=True):
    """What every format of state.json begins with."""

    format: int


class StateFile(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    state: State


class StateFolder:
    """The folder, once locked by this process. StateError for everything that is wrong with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.identity_file = folder / "identity.json"
        self.joining_file = folder / "joining.json"
        self.state_file = folder / "state.json"
        self.downloads = folder / "downloads"
        self._lock: int | None = None

    def open(self) -> None:
        """Make the folder if needed and lock it against a second agent."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _require_own(self.folder)
            self.folder.chmod(0o700)
            self.downloads.mkdir(exist_ok=True, mode=0o700)
            lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as problem:
            raise StateError(f"{self.folder} cannot be used: {problem.strerror}") from problem
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            os.close(lock)
            raise StateError(f"{self.folder} is in use by another agent; stop that one first") from problem
        self._lock = lock

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def read_identity(self) -> Identity | None:
        """None when this machine has not joined."""
        return _read(self.identity_file, Identity, "restore it from a backup, or join again with --again")

    def write_identity(self, identity: Identity) -> None:
        write_atomically(self.identity_file, msgspec.json.encode(identity))

    def read_joining(self) -> Identity | None:
        """The join that was begun and not finished; its key makes a repetition the same join."""
        return _read(self.joining_file, Identity, "remove it: that join is not finished")

    def write_joining(self, identity: Identity) -> None:
        try:
            write_atomically(self.joining_file, msgspec.json.encode(identity))
        except OSError as problem:
            raise StateError(f"{self.joining_file} cannot be written: {problem.strerror}") from problem

    def read_state(self) -> State | None:
        """None when there is no file."""
        advice = "restore it from a backup, or join again with --again"
        stamp = _read(self.state_file, Stamp, advice)  # first: what a newer agent wrote is not damaged
        if stamp is None:
            return None
        if stamp.format != FORMAT:
            raise StateError(
                f"{self.state_file} has format {stamp.format}, this agent knows {FORMAT}: use the agent that wrote it"
            )
        found = _read(self.state_file, StateFile, advice)
        return found.state if found is not None else None

    def write_state(self, state: State) -> None:
        """OSError when the disk does not take it (full, read-only, gone); the old file is whole then."""
        file = StateFile(format=FORMAT, state=durable(state))
        write_atomically(self.state_file, msgspec.json.encode(file))


def _require_own(folder: Path) -> None:
    """Whoever owns the folder can put another identity or state into it at any time. OSError passes."""
    owner = folder.stat().st_uid
    if owner != os.geteuid():
        raise StateError(f"{folder} belongs to user id {owner}, not to the agent's ({os.geteuid()}): chown it")


def require_same_machine(identity: Identity, machine_id: str, hardware: str) -> None:
    """A copied disk must not speak for the machine it was copied from."""
    if (identity.machine_id, identity.hardware) != (machine_id, hardware):
        what = "machine id" if identity.machine_id != machine_id else "hardware"
        raise StateError(f"this identity belongs to another machine ({what} differs); join again with --again")


def write_atomically(path: Path, content: bytes, *, mode: int = 0o600, sync: bool = True) -> None:
    """Replace `path` as a whole: after a power cut there is the old content or the new one. OSError passes."""
    temporary = path.with_name(path.name + ".new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)  # what was written of it takes up space on a full disk
        raise
    if sync:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path, kind: type[T], advice: str) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise StateError(f"{path} cannot be read: {problem.strerror}; {advice}") from problem
    except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
        raise StateError(f"{path} is damaged ({problem}); {advice}") from problem
