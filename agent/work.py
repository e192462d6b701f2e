"""Carries out the phase machine's work, one piece after the other, and answers with its inputs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from agent.download import Supply
from agent.drain import Verb
from agent.drivers.base import Driver, DriverError, Progress
from agent.fetch import DownloadCode, DownloadError
from agent.phases.facts import ADDRESS_ENDED
from agent.phases.inputs import Noted, WorkDone, WorkFailed
from agent.phases.leases import LEASE_ENDED
from agent.phases.model import Work, WorkKind
from agent.trust import TrustError
from wire.messages import Check, CheckState, Image, Slot

MARK_LIMIT_S = 60.0
"""For marks and arming: writes of a few bytes through a tool that may wait for a slow disk."""
REBOOT_LIMIT_S = 900.0
"""A driver waits for its own end here, longer than the slowest shutdown; this only ends a driver that hangs."""
FLUSH_LIMIT_S = 2.0
"""The gateway may hear that we reboot; a slow network does not keep us from it."""
DOWNLOAD_SHARE = 0.5
"""Of the progress shown; the other half is writing and reading back."""
ADDRESS_REFUSED = frozenset({401, 403, 410})
"""HTTP answers of a server whose short-lived address has run out."""


class Download(Protocol):
    async def __call__(self, image: Image, into: Path, progress: Progress, supply: Supply) -> None: ...


class Drain(Protocol):
    async def __call__(self, script: str, verb: Verb, limit_s: float) -> Check: ...


class Means(msgspec.Struct, frozen=True, kw_only=True):
    """What work is done with; tests bring their own."""

    driver: Driver
    download: Download
    trust: Callable[[Image], None]
    """TrustError when the node's own keys do not trust the image."""
    probe: Callable[[], Awaitable[dict[str, bool]]]
    still_standing: Callable[[Mapping[str, bool], Mapping[str, bool]], bool]
    drain: Drain
    """Runs one of the node's own executables (see agent.drain)."""
    boot_s: Callable[[], float]
    """CLOCK_BOOTTIME."""
    downloads: Path
    asleep_s: Callable[[], float] = lambda: 0.0
    """How much of that the machine was suspended."""


T = TypeVar("T")

Answer = WorkDone | WorkFailed
WRONG_KEPT = 64
"""Mirrors that are remembered as wrong, in this run of the agent; a configuration has at most eight."""


class Worker:
    """At most one piece of work at a time, as a task made by `spawn`, where what nobody foresaw is seen.

    `answer` gets the result, `progress` the share done of staging, None when that is over; `look` reads anew what
    runs in containers here.
    """

    def __init__(
        self,
        means: Means,
        *,
        spawn: Callable[[Coroutine[None, None, None], str], asyncio.Task[None]],
        answer: Callable[[Answer | Noted], None],
        progress: Callable[[float | None], None],
        flush: Callable[[float], Awaitable[None]],
        look: Callable[[], Awaitable[None]],
        noted: Callable[[], Mapping[str, bool]],
        last_slots: Callable[[], list[Slot]],
    ) -> None:
        self._means = means
        self._spawn = spawn
        self._answer = answer
        self._progress = progress
        self._flush = flush
        self._look = look
        self._noted = noted
        self._last_slots = last_slots
        self._task: asyncio.Task[None] | None = None
        self._work_id = 0
        self._wrong: list[tuple[str, str]] = []
        """(mirror, digest) where other bytes were served: not asked again for that image."""

    @property
    def busy(self) -> bool:
        """Whether work is under way: slots are not looked at meanwhile."""
        return self._task is not None and not self._task.done()

    def begin(self, work: Work) -> None:
        """Start `work`; nothing else may be under way."""
        assert not self.busy, "one piece of work at a time"
        self._work_id = work.id
        self._task = self._spawn(self._run(work), f"work {work.kind} {work.id}")

    async def abandon(self, work_id: int) -> None:
        """Stop the work of this id, if it still runs, and wait until it has let go."""
        if work_id == self._work_id:
            await self.stop()

    async def stop(self) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])
        self._progress(None)

    async def _run(self, work: Work) -> None:
        try:
            answer = await self._done(work)
        except DriverError as error:
            answer = _failed(work, error)
        except TrustError as error:
            answer = WorkFailed(id=work.id, code="untrusted-image", text=error.text)
        except TimeoutError:
            answer = WorkFailed(id=work.id, code="tool", text="the update tool did not answer in time")
        self._progress(None)
        self._answer(answer)

    async def _done(self, work: Work) -> Answer:
        if self._too_late(work):
            return WorkFailed(id=work.id, code=LEASE_ENDED, text="the lease has run out")
        driver = self._means.driver
        match work.kind:
            case WorkKind.STAGE:
                assert work.image is not None, "only an image is staged"
                await self._stage(work.image, work)
            case WorkKind.REBOOT:
                return await self._reboot(work)
            case WorkKind.PROBE:
                return await self._probe(work)
            case WorkKind.DRAIN:
                return await self._drain(work, Verb.DRAIN)
            case WorkKind.UNDRAIN:
                return await self._drain(work, Verb.UNDRAIN)
            case WorkKind.ARM:
                await _limited(driver.arm(work.slot))
            case WorkKind.DISARM:
                await _limited(driver.disarm())
            case WorkKind.MARK_GOOD:
                await _limited(driver.mark_good())
            case WorkKind.MARK_BAD:
                await _limited(driver.mark_bad(work.slot))
        return WorkDone(id=work.id, slots=await _limited(driver.slots()))

    def _too_late(self, work: Work) -> bool:
        return work.not_after_s is not None and self._means.boot_s() >= work.not_after_s

    async def _reboot(self, work: Work) -> Answer:
        await self._flush(FLUSH_LIMIT_S)
        if self._too_late(work):  # looked at directly before the reboot, as a lease demands
            return WorkFailed(id=work.id, code=LEASE_ENDED, text="the lease has run out")
        async with asyncio.timeout(REBOOT_LIMIT_S):
            await self._means.driver.reboot()
        return WorkDone(id=work.id, slots=self._last_slots())

    async def _probe(self, work: Work) -> Answer:
        _, now = await asyncio.gather(self._look(), self._means.probe())
        standing = self._means.still_standing(self._noted(), now)
        return WorkDone(id=work.id, slots=self._last_slots(), witnesses=now, standing=standing)

    async def _drain(self, work: Work, verb: Verb) -> Answer:
        check = await self._means.drain(work.script, verb, work.limit_s)
        if check.state is CheckState.PASSED:
            return WorkDone(id=work.id, slots=self._last_slots(), check=check)
        return WorkFailed(id=work.id, code="drain", text=f"{check.name}: {check.text}", check=check)

    async def _stage(self, image: Image, work: Work) -> None:
        self._means.trust(image)
        into = self._means.downloads / image.digest.removeprefix("sha256:")
        self._drop_downloads(but=into.name)
        loop = asyncio.get_running_loop()

        def share(begin: float, size: float) -> Progress:
            def tell(done: float) -> None:  # from a thread
                loop.call_soon_threadsafe(self._progress, begin + size * done)

            return tell

        def wrong(mirror: str) -> None:  # from a thread
            loop.call_soon_threadsafe(self._note_wrong, mirror, image)

        mirrors = [mirror for mirror in work.mirrors if (mirror, image.digest) not in self._wrong]
        supply = Supply(mirrors, work.bandwidth_bytes_s, wrong)
        await self._means.download(image, into, share(0.0, DOWNLOAD_SHARE), supply)
        await self._means.driver.stage(image, into, share(DOWNLOAD_SHARE, 1.0 - DOWNLOAD_SHARE))
        self._drop_downloads()

    def _note_wrong(self, mirror: str, image: Image) -> None:
        self._wrong = [*self._wrong, (mirror, image.digest)][-WRONG_KEPT:]
        text = f"The mirror {mirror} served other bytes than {image.version} ({image.digest}): not asked again for it"
        self._answer(Noted(kind="mirror-wrong", text=text))

    def _drop_downloads(self, but: str = "\0") -> None:
        """Of other images nothing is kept: a node's disk is small."""
        try:
            for path in self._means.downloads.iterdir():
                if not path.name.startswith(but):
                    path.unlink(missing_ok=True)
        except OSError as problem:
            raise DownloadError(DownloadCode.DISK, f"{problem.filename}: {problem.strerror}") from problem


async def _limited(work: Awaitable[T]) -> T:
    async with asyncio.timeout(MARK_LIMIT_S):
        return await work


def _failed(work: Work, error: DriverError) -> WorkFailed:
    if isinstance(error, DownloadError):
        if error.code == DownloadCode.HTTP and error.status in ADDRESS_REFUSED:
            return WorkFailed(id=work.id, code=ADDRESS_ENDED, text=error.text, transient=True)
        return WorkFailed(id=work.id, code=error.code, text=error.text, transient=error.transient)
    return WorkFailed(id=work.id, code=error.code, text=error.text, transient=error.code == "busy")
