"""A machine around the real RAUC: private bus, file-backed raw slots, a boot loader in a shell script.

The boot loader counts tries as U-Boot's script for RAUC does: an order, and for each slot the tries left;
every boot takes one, marking good or active fills them up again. Needs root (RAUC mounts the bundle).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

TOOLS = ("rauc", "dbus-daemon", "dbus-send", "mksquashfs", "openssl")
TRIES = 3
DEADLINE_S = 30.0
SLOT_BYTES = 256 * 1024
NAMES = {"A": "rootfs.0", "B": "rootfs.1"}

BOOT_LOADER = """#!/bin/sh
# RAUC's custom boot loader backend: get-primary, set-primary X, get-state X, set-state X good|bad.
cd "$(dirname "$0")/boot" || exit 1
put() { echo "$2" > "$1.new" && mv "$1.new" "$1"; }
case "$1" in
get-primary)
    for slot in $(cat order); do
        if [ "$(cat "$slot")" -gt 0 ]; then echo "$slot"; exit 0; fi
    done
    exit 1 ;;
set-primary)
    if [ "$2" = A ]; then put order "A B"; else put order "B A"; fi
    put "$2" 3 ;;
get-state)
    if [ "$(cat "$2")" -gt 0 ]; then echo good; else echo bad; fi ;;
set-state)
    if [ "$3" = good ]; then put "$2" 3; else put "$2" 0; fi ;;
*)
    exit 1 ;;
esac
"""

SYSTEM = """[system]
compatible={compatible}
bootloader=custom
bundle-formats=plain
data-directory={root}/data
mountprefix={root}/mount
{more}
[keyring]
path={root}/cert.pem
[handlers]
bootloader-custom-backend={root}/boot.sh
[slot.rootfs.0]
device={root}/slots/a.img
type=raw
bootname=A
[slot.rootfs.1]
device={root}/slots/b.img
type=raw
bootname=B
"""

BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={socket}</listen>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>
  </policy>
</busconfig>
"""

MANIFEST = """[update]
compatible={compatible}
version={version}
[bundle]
format=plain
[image.rootfs]
filename=rootfs.img
"""


def missing() -> str | None:
    """Why this machine cannot run here, by name; None when it can."""
    if os.geteuid() != 0:
        return "RAUC needs root to mount a bundle"
    tools = [tool for tool in TOOLS if shutil.which(tool) is None]
    if tools:
        return f"not installed: {', '.join(tools)}"
    if "squashfs" not in Path("/proc/filesystems").read_text():
        subprocess.run(["modprobe", "squashfs"], check=False, capture_output=True)
        if "squashfs" not in Path("/proc/filesystems").read_text():
            return "the kernel has no squashfs"
    found = subprocess.run(["losetup", "-f"], check=False, capture_output=True, text=True)
    return None if found.returncode == 0 else f"no loop device: {found.stderr.strip()}"


class RaucMachine:
    """Use as a context manager; `power_on` first. `bus_address` and `root` are what RaucDriver needs."""

    def __init__(self, folder: Path, *, compatible: str = "testbox", more: str = "") -> None:
        self.folder = folder
        self.compatible = compatible
        self.root = folder / "node"
        """Root of the files that say what kernel and boot this is."""
        self.booted = ""
        self._short = Path(tempfile.mkdtemp(prefix="bus-"))  # a unix socket's path is at most 107 bytes long
        self.bus_address = f"unix:path={self._short}/bus"
        self._bus: subprocess.Popen[bytes] | None = None
        self._service: subprocess.Popen[bytes] | None = None
        self._create(more)

    def __enter__(self) -> RaucMachine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.power_cut()
        shutil.rmtree(self._short)

    def _create(self, more: str) -> None:
        for name in ("slots", "boot", "data", "node/proc/sys/kernel/random", "node/etc", "bundles"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "system.conf").write_text(SYSTEM.format(compatible=self.compatible, root=self.folder, more=more))
        script = self.folder / "boot.sh"
        script.write_text(BOOT_LOADER)
        script.chmod(0o755)
        self.slot("A").write_bytes(b"factory".ljust(SLOT_BYTES, b"\0"))
        self.slot("B").write_bytes(bytes(SLOT_BYTES))
        for name, content in {"order": "A B", "A": str(TRIES), "B": "0"}.items():
            (self.folder / "boot" / name).write_text(content + "\n")
        (self.root / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")
        (self.root / "etc/os-release").write_text('ID=debian\nPRETTY_NAME="Test box"\nVERSION_ID=1.0\n')
        new_key(self.folder / "key.pem", self.folder / "cert.pem")

    def slot(self, name: str) -> Path:
        """The device of slot A or B."""
        return self.folder / "slots" / f"{name.lower()}.img"

    def slot_bytes(self) -> tuple[bytes, bytes]:
        return self.slot("A").read_bytes(), self.slot("B").read_bytes()

    def bundle(self, version: str, content: bytes, *, key: Path | None = None, compatible: str | None = None) -> Path:
        """A signed bundle whose root file system is `content`; `key` NAME.pem has its NAME.crt beside it."""
        source = Path(tempfile.mkdtemp(dir=self.folder / "bundles"))
        (source / "rootfs.img").write_bytes(content)
        (source / "manifest.raucm").write_text(
            MANIFEST.format(compatible=compatible or self.compatible, version=version)
        )
        key = key or self.folder / "key.pem"
        cert = self.folder / "cert.pem" if key.name == "key.pem" else key.with_suffix(".crt")
        target = source.with_suffix(".raucb")
        run("rauc", "--cert", str(cert), "--key", str(key), "bundle", str(source), str(target))
        shutil.rmtree(source)
        return target

    # --- power ------------------------------------------------------------------------------------------

    def power_on(self) -> str:
        """Boot what the boot loader says and return it (A or B); a try less, a new boot id, RAUC running."""
        self.booted = self.next_boot()
        self._set(self.booted, self.tries(self.booted) - 1)
        (self.root / "proc/sys/kernel/random/boot_id").write_text(f"{uuid.uuid4()}\n")
        (self.root / "proc/stat").write_text(f"btime {int(time.time())}\n")
        self.start_bus()
        self.start_service()
        return self.booted

    def power_cut(self) -> None:
        """Nothing gets to tidy up."""
        self.kill_service()
        self.kill_bus()

    def reboot(self) -> str:
        self.power_cut()
        return self.power_on()

    def fail_boot(self) -> None:
        """The next boot does not come up: it costs its try, and nothing of the system ever runs."""
        self.power_cut()
        chosen = self.next_boot()
        self._set(chosen, self.tries(chosen) - 1)

    def next_boot(self) -> str:
        for name in (self.folder / "boot/order").read_text().split():
            if self.tries(name) > 0:
                return name
        raise AssertionError("the boot loader has nothing to boot")

    def tries(self, name: str) -> int:
        return int((self.folder / "boot" / name).read_text())

    def _set(self, name: str, tries: int) -> None:
        (self.folder / "boot" / name).write_text(f"{tries}\n")

    # --- processes --------------------------------------------------------------------------------------

    def start_bus(self) -> None:
        config = self._short / "bus.conf"
        config.write_text(BUS.format(socket=self._short / "bus"))
        (self._short / "bus").unlink(missing_ok=True)
        self._bus = subprocess.Popen(
            ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile"],
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._bus_answers, "the bus answers")

    def start_service(self) -> None:
        self._service = subprocess.Popen(
            ["rauc", f"--conf={self.folder}/system.conf", f"--override-boot-slot={self.booted}", "service"],
            env={**os.environ, **self._client()},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: b"true" in self._name_has_owner(), "the RAUC service answers")

    def stop_service_answering(self) -> None:
        """The service hangs: it owns its name and says nothing."""
        assert self._service is not None
        self._service.send_signal(signal.SIGSTOP)

    def kill_service(self) -> None:
        self._service = _killed(self._service)

    def kill_bus(self) -> None:
        self._bus = _killed(self._bus)

    def _client(self) -> dict[str, str]:
        return {"DBUS_STARTER_BUS_TYPE": "session", "DBUS_SESSION_BUS_ADDRESS": self.bus_address}

    def _bus_answers(self) -> bool:
        return b"boolean" in self._name_has_owner()

    def _name_has_owner(self) -> bytes:
        return subprocess.run(
            [
                "dbus-send",
                f"--bus={self.bus_address}",
                "--print-reply",
                "--dest=org.freedesktop.DBus",
                "/org/freedesktop/DBus",
                "org.freedesktop.DBus.NameHasOwner",
                "string:de.pengutronix.rauc",
            ],
            check=False,
            capture_output=True,
        ).stdout


def new_key(key: Path, cert: Path) -> None:
    """A self-signed certificate and its key."""
    run(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"),
        *("-keyout", str(key), "-out", str(cert)),
    )


def run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Return when `condition()` holds; AssertionError after DEADLINE_S."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.02)


def _killed(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None:
        process.kill()
        process.wait()
