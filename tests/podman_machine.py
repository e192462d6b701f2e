"""A real Podman with a store of its own: containers to look at, without touching the machine's.

Works as root also where cgroups and capabilities are restricted: runc instead of crun, limits that can be set,
no network, plain copies instead of overlays. The image is made from the machine's static busybox.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

IMAGE = "localhost/busybox:1"
APPLETS = ("sh", "sleep", "true", "false", "cat", "test", "touch")

COMMAND_LIMIT_S = 60.0
WAIT_LIMIT_S = 20.0


class PodmanMachine:
    """Starts the engine at construction; `socket` answers the Docker API. Close it, or use it in `with`."""

    def __init__(self) -> None:
        reason = self.missing()
        if reason:
            raise RuntimeError(reason)
        # Podman refuses run folders with long paths, and so do unix sockets: not below a test's own folder.
        self.folder = Path(tempfile.mkdtemp(prefix="tr-podman-"))
        self.socket = self.folder / "podman.sock"
        config = self.folder / "containers.conf"
        config.write_text('[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]\n')
        self._environment = {**os.environ, "CONTAINERS_CONF": str(config)}
        self._service: subprocess.Popen[bytes] | None = None
        try:
            self._import_image()
            self.start_engine()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def missing() -> str:
        """Why it cannot be had on this machine; empty when it can."""
        if os.geteuid() != 0:
            return "real Podman: needs root"
        for tool in ("podman", "runc", "busybox", "tar"):
            if shutil.which(tool) is None:
                return f"real Podman: {tool} is not installed"
        if b"/ld-linux" in Path(str(shutil.which("busybox"))).read_bytes():
            return "real Podman: busybox is not static (Debian: busybox-static)"
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        if all(line.split()[4] != "/" for line in mounts):
            return "real Podman: / is no mount point (a plain chroot), so it cannot unpack an image"
        return ""

    def __enter__(self) -> PodmanMachine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(
        self,
        name: str,
        labels: Mapping[str, str] | None = None,
        command: Sequence[str] = ("/bin/sleep", "1000"),
        options: Sequence[str] = (),
    ) -> str:
        """Start a container and return its id."""
        marks = [f"--label={key}={value}" for key, value in (labels or {}).items()]
        started = self.podman("run", "--detach", "--network=none", f"--name={name}", *marks, *options, IMAGE, *command)
        return started.strip()

    def stop(self, name: str) -> None:
        """End the container's process at once; the container stays, exited."""
        self.podman("stop", "--time=0", name)

    def start(self, name: str) -> None:
        self.podman("start", name)

    def rm(self, name: str) -> None:
        """Remove the container, running or not."""
        self.podman("rm", "--force", "--time=0", name)

    def podman(self, *arguments: str, expect: int = 0) -> str:
        """Run one command against this store and return what it printed."""
        done = subprocess.run(
            [*self._podman(), *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_LIMIT_S,
            text=True,
        )
        if done.returncode != expect:
            raise RuntimeError(f"podman {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def start_engine(self) -> None:
        """Serve the API and wait until the socket answers."""
        self.socket.unlink(missing_ok=True)
        with (self.folder / "service.log").open("ab") as log:
            self._service = subprocess.Popen(
                [*self._podman(), "system", "service", "--time=0", f"unix://{self.socket}"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        service = self._service
        self._wait_for(lambda: self._listens() or service.poll() is not None, "its socket answered")
        if service.poll() is not None:
            raise RuntimeError(f"Podman did not start: {(self.folder / 'service.log').read_text()}")

    def freeze_engine(self) -> None:
        """The engine's process stops running: its socket accepts and nobody answers."""
        self._running_service().send_signal(signal.SIGSTOP)

    def thaw_engine(self) -> None:
        self._running_service().send_signal(signal.SIGCONT)

    def stop_engine(self) -> None:
        """End the API's process; the containers run on."""
        if self._service is not None and self._service.poll() is None:
            self._service.send_signal(signal.SIGCONT)
            self._service.terminate()
            try:
                self._service.wait(10)
            except subprocess.TimeoutExpired:
                self._service.kill()
                self._service.wait(10)
        self._service = None
        self.socket.unlink(missing_ok=True)

    def close(self) -> None:
        """Stop the engine, remove all containers and the store."""
        self.stop_engine()
        try:
            self.podman("rm", "--all", "--force", "--time=0")
        finally:
            # Clean-up processes outlive their containers for a moment, and make the folders anew.
            self._wait_for(lambda: not self._processes(), "its processes ended")
            shutil.rmtree(self.folder)

    def _processes(self) -> list[int]:
        """Whatever runs with this store: the engine, monitors of containers, clean-up."""
        own = str(self.folder).encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if own in (process / "cmdline").read_bytes():
                    found.append(int(process.name))
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended while we looked
        return found

    def _wait_for(self, reached: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + WAIT_LIMIT_S
        while not reached():
            if time.monotonic() > deadline:
                raise RuntimeError(f"Podman in {self.folder}: waited {WAIT_LIMIT_S:g} s until {what}")
            time.sleep(0.02)

    def _running_service(self) -> subprocess.Popen[bytes]:
        if self._service is None:
            raise RuntimeError("the engine does not run")
        return self._service

    def _podman(self) -> list[str]:
        return [
            "podman",
            "--runtime=runc",
            "--storage-driver=vfs",
            "--cgroup-manager=cgroupfs",
            "--events-backend=file",
            f"--root={self.folder / 'root'}",
            f"--runroot={self.folder / 'run'}",
            f"--tmpdir={self.folder / 'tmp'}",
        ]

    def _import_image(self) -> None:
        rootfs = self.folder / "rootfs"
        for name in ("bin", "etc", "proc", "sys", "dev", "tmp"):
            (rootfs / name).mkdir(parents=True)
        shutil.copy(str(shutil.which("busybox")), rootfs / "bin/busybox")
        for applet in APPLETS:
            (rootfs / "bin" / applet).symlink_to("busybox")
        archive = self.folder / "rootfs.tar"
        subprocess.run(["tar", "-C", str(rootfs), "-cf", str(archive), "."], check=True)
        self.podman("import", str(archive), IMAGE)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except (FileNotFoundError, ConnectionRefusedError):
                return False
        return True
