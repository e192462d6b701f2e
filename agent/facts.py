"""What this machine is: identity, hardware, OS, boot. Read from files below an injected root.

The hardware fingerprint (`hardware_fingerprint`) stands for the box, not for what is installed on it: it must
be the same from both slots, whatever kernel and drivers they hold. It is taken from the first of these levels
that says anything credible, and from that level alone:

1. what the firmware says: DMI product UUID and the serial numbers of product, board and chassis, and the
   device tree's serial number. Makers' placeholders are not credible;
2. permanent addresses of the physical network interfaces. Only the second choice, since an interface whose
   driver one slot lacks is missing there;
3. the machine id: containers and virtual machines that show no hardware.

The DMI serials are readable for root only: an agent that is run as another user has another fingerprint.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from wire.messages import OsFacts

ROOT = Path("/")
PROC = Path("/proc")

SYSTEMCTL_LIMIT_S = 2.0
"""How long systemd may take to say whether it is stopping; it answers from memory."""

_MACHINE_ID = re.compile(r"[0-9a-f]{32}")
_MACHINE_ID_FILES = ("etc/machine-id", "var/lib/dbus/machine-id")

_DMI_FILES = ("product_uuid", "product_serial", "board_serial", "chassis_serial")
_DEVICE_TREE_FILES = ("sys/firmware/devicetree/base/serial-number", "proc/device-tree/serial-number")
_PLACEHOLDER = re.compile(
    r"|to be filled.*|default string|none|null|n/?a|unknown|invalid|empty|oem|o\.e\.m\.|not .*|"
    r"(system|base board|chassis|product)[ -]?(serial[ -]?number|s/?n|uuid).*|serial[ -]?number|"
    r"0123456789|1234567890?|[0.x*-]+|[f-]+|type\d.*"
)
_SHARED_UUIDS = frozenset(
    {
        # Boards that left the factory without a number of their own.
        "03000200-0400-0500-0006-000700080009",
        "00020003-0004-0005-0006-000700080009",
        "12345678-1234-5678-90ab-cddeefaabbcc",
    }
)
_ETHERNET = "1"
_PERMANENT_ADDRESS = "0"
"""addr_assign_type NET_ADDR_PERM: burnt in, neither random nor set by someone."""

_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv6l": "arm",
    "armv7l": "arm",
    "armv8l": "arm",
    "i386": "386",
    "i486": "386",
    "i586": "386",
    "i686": "386",
    "loongarch64": "loong64",
}
_HALF = {"amd64": "386", "arm64": "arm"}
"""What a 32-bit system on a 64-bit kernel is."""


class FactsError(Exception):
    """The machine does not say something that the agent cannot do without; words itself."""


def machine_id(root: Path = ROOT) -> str:
    """32 hex digits; FactsError when the system has none (yet)."""
    for name in _MACHINE_ID_FILES:
        text = _text(root / name).lower()
        if _MACHINE_ID.fullmatch(text):
            return text
    raise FactsError(f"no machine id in {root / _MACHINE_ID_FILES[0]}; systemd-machine-id-setup makes one")


def hardware_fingerprint(root: Path = ROOT) -> str:
    """`sha256:` and 64 hex digits; what it covers is said at the top of this file."""
    parts = _firmware_identity(root) or _addresses(root) or [f"machine-id={_machine_id_or_nothing(root)}"]
    return "sha256:" + hashlib.sha256("\n".join(["twinroot hardware 1", *parts]).encode()).hexdigest()


def _machine_id_or_nothing(root: Path) -> str:
    try:
        return machine_id(root)
    except FactsError:
        return ""


def _firmware_identity(root: Path) -> list[str]:
    found = [(name, _text(root / "sys/class/dmi/id" / name)) for name in _DMI_FILES]
    serial = next((text for name in _DEVICE_TREE_FILES if (text := _text(root / name))), "")
    found.append(("device-tree", serial))
    return [f"{name}={value.lower()}" for name, value in found if _credible(value)]


def _credible(value: str) -> bool:
    lower = value.strip().lower()
    return not _PLACEHOLDER.fullmatch(lower) and lower not in _SHARED_UUIDS


def _addresses(root: Path) -> list[str]:
    """Sorted permanent addresses of Ethernet-like interfaces that have a device behind them."""
    found = set()
    for interface in sorted((root / "sys/class/net").glob("*")):
        if not (interface / "device").exists() or _text(interface / "type") != _ETHERNET:
            continue
        # A bond gives all its members one address; the member's own is kept here.
        address = _text(interface / "bonding_slave/perm_hwaddr")
        if not address and _text(interface / "addr_assign_type") == _PERMANENT_ADDRESS:
            address = _text(interface / "address")
        if address.strip("0:"):
            found.add(f"mac={address.lower()}")
    return sorted(found)


def os_facts(root: Path = ROOT, driver: str = "", machine: str | None = None) -> OsFacts:
    """The running OS as images are matched against it.

    `version` is the image's version where os-release has one (IMAGE_VERSION, OSTREE_VERSION), else VERSION_ID,
    else BUILD_ID. `machine` is the kernel's word for the architecture, asked for when not given.
    """
    release = os_release(root)
    versions = (release.get(key, "") for key in ("IMAGE_VERSION", "OSTREE_VERSION", "VERSION_ID", "BUILD_ID"))
    os_id = release.get("ID", "") or "linux"
    return OsFacts(
        id=os_id,
        name=release.get("PRETTY_NAME", "") or release.get("NAME", "") or os_id,
        version=next((version for version in versions if version), ""),
        kernel=_text(root / "proc/sys/kernel/osrelease"),
        arch=architecture(os.uname().machine if machine is None else machine, wide=sys.maxsize > 2**32),
        driver=driver,
    )


def os_release(root: Path = ROOT) -> dict[str, str]:
    """Fields of /etc/os-release, else of /usr/lib/os-release; never of both (os-release(5))."""
    for name in ("etc/os-release", "usr/lib/os-release"):
        path = root / name
        if path.is_file():
            return parse_os_release(path.read_text(encoding="utf-8", errors="replace"))
    return {}


def parse_os_release(text: str) -> dict[str, str]:
    """KEY=VALUE lines with shell quoting; lines that are neither that nor a comment are left out."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, quoted = line.strip().partition("=")
        if not equals or not re.fullmatch(r"[A-Z][A-Z0-9_]*", key):
            continue
        value = _unquoted(quoted.strip())
        if value is not None:
            fields[key] = value
    return fields


def _unquoted(text: str) -> str | None:
    """The value behind the quotes; None where they do not match."""
    quote = text[:1]
    if quote not in ('"', "'"):
        return None if re.search(r"[\s\"']", text) else text
    if len(text) < 2 or text[-1] != quote:
        return None
    inner = text[1:-1]
    return inner if quote == "'" else re.sub(r"\\([\\\"$`])", r"\1", inner)


def architecture(machine: str, *, wide: bool = True) -> str:
    """An architecture in the words of images (amd64, arm64, …); `wide` is False in a 32-bit system."""
    name = _ARCHITECTURES.get(machine, machine)
    return name if wide else _HALF.get(name, name)


def boot_id(root: Path = ROOT) -> str:
    """The kernel's random identity of this boot; FactsError where it says none."""
    text = _text(root / "proc/sys/kernel/random/boot_id")
    if not text:
        raise FactsError(f"no boot id in {root / 'proc/sys/kernel/random/boot_id'}")
    return text


def boot_time(root: Path = ROOT) -> float:
    """When this boot began, Unix seconds by the machine's clock; 0.0 where the kernel does not say."""
    for line in _text(root / "proc/stat").splitlines():
        key, _, value = line.partition(" ")
        if key == "btime" and value.strip().isdigit():
            return float(value)
    return 0.0


def boottime_now() -> float:
    """Seconds since boot, suspended time included: the clock that leases are counted on."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def asleep_s() -> float:
    """How long the machine has been suspended since it booted: the one clock goes on meanwhile, the other not."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


def process_started(pid: int, proc: Path = PROC) -> str:
    """Start time of a process in kernel ticks; empty when there is none. Field 22 of proc(5) stat."""
    try:
        text = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


def shutting_down(root: Path = ROOT, systemctl: str = "systemctl") -> bool:
    """Whether the system is stopping, or a shutdown or reboot is scheduled. Blocks up to SYSTEMCTL_LIMIT_S.

    Where systemd does not run, or does not answer in time, the answer is False.
    """
    if (root / "run/systemd/shutdown/scheduled").exists():
        return True
    if not (root / "run/systemd/system").is_dir():
        return False
    try:
        answer = subprocess.run(
            [systemctl, "is-system-running"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=SYSTEMCTL_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.stdout.strip() == b"stopping"


def _text(path: Path) -> str:
    """The file's text without surrounding space and NULs; empty when there is none to read.

    Absence is the normal case here: which of these files exist says what kind of machine it is.
    """
    try:
        raw = path.read_bytes()
    except OSError:
        return ""
    return raw.decode("utf-8", errors="replace").strip(" \t\r\n\0")
