"""The configuration file: read, checked, and wrong in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.checks import Builtin, DiskLimit
from agent.config import DEFAULT_FILE, check_url, find, load
from agent.errors import ConfigError

LEAST = 'driver = "rauc"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text)
    return path


def test_the_least_file_has_the_defaults_of_an_installed_node(tmp_path: Path) -> None:
    config = load(written(tmp_path, LEAST))
    assert str(config.state_folder) == "/var/lib/twinroot-agent"
    assert str(config.run_folder) == "/run/twinroot-agent"
    assert config.rauc.reboot_command == ("systemctl", "reboot") and config.runtimes == ()
    assert config.drain_folders == (Path("/etc/twinroot-agent/drain.d"), Path("/usr/lib/twinroot-agent/drain.d"))
    assert not config.allow_unencrypted and config.check_interval_s == 15 and config.limits.stage_s == 3600


def test_a_node_without_containers_says_so_and_names_no_engine(tmp_path: Path) -> None:
    assert load(written(tmp_path, LEAST + "no_containers = true\n")).no_containers
    with pytest.raises(ConfigError, match="no_containers: this node names container engines"):
        load(written(tmp_path, LEAST + 'no_containers = true\nruntimes = ["/run/docker.sock"]\n'))


def test_everything_can_be_said(tmp_path: Path) -> None:
    text = """
driver = "files"
state_folder = "/srv/agent"
root = "/srv/root"
runtimes = ["/run/podman/podman.sock"]
image_keys = "/srv/keys"
allow_unencrypted = true
labels = { site = "attic" }
[files]
root = "/srv/node"
tries = 2
[checks]
interval_s = 1
trial_interval_s = 0.5
folders = ["/srv/check.d"]
builtins = ["state", "disk"]
required_builtins = []
disks = [{ path = "/srv", min_free_mib = 1 }]
[drain]
folders = ["/srv/drain.d"]
[witnesses]
default_route = false
dns_names = ["example.org"]
urls = ["http://127.0.0.1:1/"]
[limits]
stage_s = 60
unasked_confirm_s = 5
"""
    config = load(written(tmp_path, text))
    assert config.files is not None and config.files.tries == 2
    assert str(config.run_folder) == "/srv/agent/run"
    assert config.checks.builtins == {Builtin.STATE, Builtin.DISK} and config.checks.required_builtins == set()
    assert config.checks.disks == (DiskLimit(Path("/srv"), 5.0, 1.0),)
    assert config.checks.state_folder == Path("/srv/agent") and config.drain_folders == (Path("/srv/drain.d"),)
    assert config.witnesses.urls == ("http://127.0.0.1:1/",) and config.limits.unasked_confirm_s == 5
    assert config.labels == {"site": "attic"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "driver"),
        ("driver = ", "not TOML"),
        ('driver = "ostree"', "driver: Invalid enum value 'ostree'"),
        (LEAST + "drivr = 1", "drivr"),
        (LEAST + '[drain]\nfolders = ["/a", "b"]', "drain.folders[1]: 'b' is not an absolute path"),
        ('driver = "files"', "[files]"),
        ('driver = "files"\n[files]\nroot = "here"', "files.root: 'here' is not an absolute path"),
        ('driver = "files"\n[files]\nroot = "/x"\ntries = 0', "files.tries"),
        (LEAST + "[checks]\ninterval_s = 0", "checks.interval_s"),
        (LEAST + "[checks]\ninterval_s = inf", "checks.interval_s"),
        (LEAST + '[checks]\ninterval_s = "1"', "checks.interval_s: Expected `float`, got `str`"),
        (LEAST + '[checks]\nbuiltins = ["x"]', "checks.builtins"),
        (LEAST + "[checks]\ninterval = 3", "checks: Object contains unknown field `interval`"),
        (LEAST + 'state_folder = "x"', "state_folder"),
        (LEAST + 'runtimes = ["/a", "b"]', "runtimes[1]"),
        (LEAST + '[witnesses]\nurls = ["ftp://x"]', "witnesses.urls"),
        (LEAST + "[rauc]\nreboot_command = []", "rauc.reboot_command"),
        (LEAST + 'labels = { " x" = "y" }', "labels"),
    ],
)
def test_errors_name_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(path) in caught.value.text and words in caught.value.text, caught.value.text
    assert "\n" not in caught.value.text


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read: No such file"):
        load(tmp_path / "none.toml")


def test_which_file() -> None:
    assert find(Path("/a"), {"TWINROOT_AGENT_CONFIG": "/b"}) == Path("/a")
    assert find(None, {"TWINROOT_AGENT_CONFIG": "/b"}) == Path("/b")
    assert find(None, {}) == DEFAULT_FILE


@pytest.mark.parametrize(
    "url", ["wss://gw.example/agent", "ws://127.0.0.1:8090/agent", "ws://[::1]/agent", "ws://localhost/x"]
)
def test_good_addresses(url: str) -> None:
    check_url(url, allow_unencrypted=False)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ws://10.0.0.1/agent", "not encrypted"),
        ("ws://localhost.example.org/agent", "not encrypted"),
        ("http://127.0.0.1/agent", "no address of a gateway"),
        ("wss:///agent", "no address of a gateway"),
        ("wss://host:port/agent", "host:port"),
    ],
)
def test_bad_addresses(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_url(url, allow_unencrypted=False)


def test_unencrypted_only_when_said() -> None:
    check_url("ws://10.0.0.1/agent", allow_unencrypted=True)
