"""Settings: a wrong one stops the start by its name; the embedded default's secret is made once and whole."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from app.config import Settings, load_settings
from app.core.errors import Misconfigured


def load(folder: Path, **given: str) -> Settings:
    named = {f"TWINROOT_{name}": text for name, text in given.items()}
    return load_settings({"TWINROOT_DATA_DIR": str(folder)} | named)


def test_the_defaults_are_those_of_one_machine(tmp_path: Path) -> None:
    found = load(tmp_path)
    assert found.database_url == f"sqlite:///{tmp_path}/twinroot.db"
    assert (str(found.http), str(found.gateway)) == ("127.0.0.1:8080", "127.0.0.1:8090")
    assert found.public_url == "http://127.0.0.1:8080"
    assert (found.agent_url, found.live_url) == ("ws://127.0.0.1:8090/agent", "ws://127.0.0.1:8090/live")
    assert not found.allow_unencrypted


@pytest.mark.parametrize(
    ("variable", "text"), [("SECRET_KEY", "kept in a file"), ("DATABASE_URL", "postgresql://user:word@db/twinroot")]
)
def test_each_secret_may_come_from_a_file(tmp_path: Path, variable: str, text: str) -> None:
    """The database's address has its password in it."""
    file = tmp_path / "secret"
    file.write_text(text + "\n")
    assert getattr(load(tmp_path, **{f"{variable}_FILE": str(file)}), variable.lower()) == text
    assert getattr(load(tmp_path, **{variable: text}), variable.lower()) == text
    with pytest.raises(Misconfigured, match="not both"):
        load(tmp_path, **{variable: text, f"{variable}_FILE": str(file)})


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("HTTP", "8080"),
        ("HTTP", "host:70000"),
        ("HTTP", "host:²"),
        ("GATEWAY", ":8090"),
        ("PUBLIC_URL", "console.example"),
        ("PUBLIC_URL", "ftp://console.example"),
        ("PUBLIC_URL", "http://console.example:port"),
        ("PUBLIC_URL", "http://["),
        ("PUBLIC_URL", "http://:80"),
        ("AGENT_URL", "https://console.example"),
        ("LIVE_URL", "ws://console.example;script-src *"),
        ("ALLOW_UNENCRYPTED", "yes"),
        ("DATABASE_URL", "mysql://host/db"),
        ("DATABASE_URL", "postgresql://user:word@host:port/db"),
        ("SECRET_KEY_FILE", "/nowhere/at/all"),
        ("SECRET_KEY_FILE", "/dev/null"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, variable: str, text: str) -> None:
    with pytest.raises(Misconfigured) as wrong:
        load(tmp_path, **{variable: text})
    assert wrong.value.variable == f"TWINROOT_{variable}"
    assert "word@" not in str(wrong.value), "no password in a message"


def test_an_empty_secret_of_ours_is_refused(tmp_path: Path) -> None:
    """Left by a crash in the middle of making it: everything signed with it could be forged."""
    (tmp_path / "secret-key").write_text("\n")
    with pytest.raises(Misconfigured, match="empty"):
        load(tmp_path)


def test_processes_that_start_at_once_have_one_secret(tmp_path: Path) -> None:
    ready = threading.Barrier(8)
    found: list[str] = []

    def start() -> None:
        ready.wait()
        found.append(load_settings({"TWINROOT_DATA_DIR": str(tmp_path / "data")}).secret_key)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1 and len(found[0]) > 40
    files = list((tmp_path / "data").iterdir())
    assert [file.name for file in files] == ["secret-key"]
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Misconfigured, match="TWINROOT_DATA_DIR"):
        load(tmp_path / "file" / "below")


@pytest.mark.parametrize(
    ("listening", "missing"),
    [("TWINROOT_GATEWAY", "TWINROOT_AGENT_URL"), ("TWINROOT_HTTP", "TWINROOT_PUBLIC_URL")],
)
@pytest.mark.parametrize("everywhere", ["0.0.0.0:9000", "[::]:9000"])
def test_listening_everywhere_needs_the_address_that_others_use(
    tmp_path: Path, listening: str, missing: str, everywhere: str
) -> None:
    with pytest.raises(Misconfigured, match=missing):
        load_settings({"TWINROOT_DATA_DIR": str(tmp_path), listening: everywhere})
    urls = {
        "TWINROOT_AGENT_URL": "wss://fleet.example/agent",
        "TWINROOT_LIVE_URL": "wss://fleet.example/live",
        "TWINROOT_PUBLIC_URL": "https://fleet.example",
    }
    settings = load_settings({"TWINROOT_DATA_DIR": str(tmp_path), listening: everywhere} | urls)
    assert settings.agent_url == "wss://fleet.example/agent"
