"""A node around the real RAUC: the machine of the driver's tests, and the agent as a process that reboots with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from sim.local import LocalProcess
from tests.agent.drivers.rauc_machine import TRIES, RaucMachine

AGENT = """\
driver = "rauc"
root = "{machine}"
state_folder = "{folder}/agent"
image_keys = "{keys}"
no_containers = true

[rauc]
bus_address = "{bus}"
reboot_command = ["{folder}/reboot"]

[checks]
folders = ["{folder}/check.d"]
builtins = ["state"]
interval_s = 0.5
trial_interval_s = 0.3

[witnesses]
default_route = false

[limits]
unasked_confirm_s = 0.5
"""

LOOK_S = 0.02


class RaucNode:
    """As sim.local.LocalNode, as far as the kit uses it. `broken`: the next new slot never comes up."""

    def __init__(self, folder: Path, name: str, keys: Path) -> None:
        self.name = name
        self.root = folder / name
        self.machine = RaucMachine(folder / f"{name}-machine")
        self.config = self.root / "agent.toml"
        self.broken = False
        self._wanted = self.root / "reboot-wanted"
        words: Mapping[str, object] = {"machine": self.machine.root, "folder": self.root, "keys": keys}
        self.root.mkdir()
        self.config.write_text(AGENT.format(bus=self.machine.bus_address, **words))
        reboot = self.root / "reboot"
        reboot.write_text(f"#!/bin/sh\ntouch {self._wanted}\n")
        reboot.chmod(0o755)
        agent = [sys.executable, "-m", "agent.cli", "run", "--config", str(self.config)]
        self.process = LocalProcess(name, agent, self.root / "agent.log", os.environ)
        self._off = threading.Event()
        self._firmware = threading.Thread(target=self._watch, name=f"firmware of {name}")

    def join(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-m", "agent.cli", *command[1:], "--config", str(self.config), "--name", self.name]
        return subprocess.run(arguments, capture_output=True, text=True, timeout=60)

    def power_on(self) -> None:
        """Boot; the agent is not started."""
        self.machine.power_on()

    def start(self) -> None:
        """Start the agent, and from now on answer its wish to reboot."""
        self.process.start()
        self._firmware.start()

    def stop(self) -> None:
        self._off.set()
        if self._firmware.is_alive():
            self._firmware.join()
        self.process.stop()
        self.machine.__exit__(None, None, None)

    def boot(self) -> dict[str, object]:
        kernel = self.machine.root / "proc/sys/kernel/random/boot_id"
        return {"slot": self.machine.booted, "boot_id": kernel.read_text().strip()}

    def slots(self) -> list[dict[str, object]]:
        """As the agent last saw them."""
        state = json.loads((self.root / "agent" / "state.json").read_bytes())["state"]
        return list(state["slots"])

    def _watch(self) -> None:
        """Init and firmware: the agent ends as on a shutdown, the machine comes up anew, the agent is started."""
        while not self._off.wait(LOOK_S):
            if self._wanted.exists():
                self._wanted.unlink()
                self.process.stop()
                if self.broken:
                    self.broken = False
                    for _ in range(TRIES):
                        self.machine.fail_boot()
                    self.machine.power_on()
                else:
                    self.machine.reboot()
                self.process.start()
