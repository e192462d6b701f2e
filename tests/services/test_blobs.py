"""A full disk, shown on real ones: a file size limit of the process, and a small tmpfs."""

from __future__ import annotations

import io
import os
import resource
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.config import Settings
from app.core.errors import NoSpace
from app.services.blobs import Blobs
from tests.server_kit import NOW
from tests.services.image_kit import files_below

MIB = 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a tmpfs")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"this machine mounts no tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def receive(blobs: Blobs, size: int) -> None:
    with blobs.receive(io.BytesIO(bytes(size)), NOW) as received:
        blobs.keep(received)


@pytest.mark.root
def test_a_full_disk_is_said_and_leaves_nothing(small_disk: Path, settings: Settings) -> None:
    blobs = Blobs(replace(settings, data_dir=small_disk))
    with pytest.raises(NoSpace):
        receive(blobs, 3 * MIB)
    assert files_below(small_disk) == []
    receive(blobs, MIB)  # what fits is taken: nothing of the failed one is left
    assert len(files_below(small_disk)) == 1


def test_a_quota_is_said_and_leaves_nothing(settings: Settings) -> None:
    blobs = Blobs(settings)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, before[1]))
    try:
        with pytest.raises(NoSpace):
            receive(blobs, 2 * MIB)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert files_below(settings.data_dir) == []


def test_what_is_not_kept_is_gone(settings: Settings) -> None:
    blobs = Blobs(settings)
    with blobs.receive(io.BytesIO(b"content"), NOW) as received:
        assert received.path.read_bytes() == b"content"
        assert received.start == b"content"
    assert not blobs.has(received.digest)
    assert files_below(settings.data_dir) == []


def test_only_the_start_is_held_in_memory(settings: Settings) -> None:
    with Blobs(settings).receive(io.BytesIO(b"x" * 3 * MIB), NOW) as received:
        assert received.start == b"x" * 16 * 1024
        assert received.size == 3 * MIB
