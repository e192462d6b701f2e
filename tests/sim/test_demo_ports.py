"""Where the demo listens: as told, else where everybody looks, and only on this machine."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sim.demo import demo_port, run_demo
from sim.local import LocalControlPlane, LocalError, free_port


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_the_demo_listens_where_it_is_told() -> None:
    assert demo_port("TWINROOT_HTTP", {"TWINROOT_HTTP": "127.0.0.1:18080"}, 8080) == 18080


def test_untold_it_takes_the_usual_port_where_that_is_free() -> None:
    usual = free_port()
    assert demo_port("TWINROOT_HTTP", {}, usual) == usual


@pytest.mark.parametrize("address", ["0.0.0.0:80", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:0", "127.0.0.1:70000", "80"])
def test_an_address_beyond_this_machine_is_refused_by_name(address: str) -> None:
    with pytest.raises(LocalError, match=f"TWINROOT_HTTP={address}: the demo listens"):
        demo_port("TWINROOT_HTTP", {"TWINROOT_HTTP": address}, 8080)


def test_a_port_that_is_taken_is_named_where_it_was_told_and_passed_over_where_not(taken: int) -> None:
    told = {"TWINROOT_GATEWAY": f"127.0.0.1:{taken}"}
    with pytest.raises(LocalError, match=f"^TWINROOT_GATEWAY=127.0.0.1:{taken}: the port is in use$"):
        demo_port("TWINROOT_GATEWAY", told, 8090)
    assert demo_port("TWINROOT_GATEWAY", {}, taken) != taken


def test_a_control_plane_never_takes_a_foreign_listener_for_its_own(taken: int, tmp_path: Path) -> None:
    plane = LocalControlPlane(tmp_path, http_port=taken)
    with pytest.raises(LocalError, match=f"TWINROOT_HTTP=127.0.0.1:{taken}: the port is in use"):
        plane.start()
    assert not plane.process.running


def test_a_control_plane_that_ends_says_its_last_line(tmp_path: Path) -> None:
    plane = LocalControlPlane(tmp_path, TWINROOT_ALLOW_UNENCRYPTED="perhaps")
    said = "twinroot up ended: twinroot: TWINROOT_ALLOW_UNENCRYPTED: must be 0 or 1, not “perhaps”"
    with pytest.raises(LocalError, match=f"^{re.escape(said)}$"):
        plane.start()


def test_a_demo_that_cannot_start_says_why_as_every_command(
    taken: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TWINROOT_HTTP", f"127.0.0.1:{taken}")
    with pytest.raises(SystemExit) as ended:
        run_demo(1)
    said = capsys.readouterr()
    assert ended.value.code == 1 and said.out == ""
    assert said.err == f"twinroot: TWINROOT_HTTP=127.0.0.1:{taken}: the port is in use\n"
