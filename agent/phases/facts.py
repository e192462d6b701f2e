"""Inputs that only tell something: they are recorded the same way in every step."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from agent.phases import drains
from agent.phases.boot import armed_slot, guard_next_boot
from agent.phases.gates import begin_staging
from agent.phases.inputs import (
    Checked,
    Inhibited,
    Input,
    LinkLost,
    Noted,
    Placed,
    SlotsSeen,
    Stopping,
    Ticked,
    Welcomed,
    WorkDone,
    WorkFailed,
)
from agent.phases.leases import try_again
from agent.phases.model import Remaining, Rounds, State, Step, Stop, Work, WorkKind, failing, is_good, passive
from agent.phases.turn import CHECK_FAILED, Turn
from agent.phases.words import asked, worded
from wire.messages import Ack, HealthState, OperationKind, Result

REBASE_S = 300.0
"""How much of the way back's span a power cut may make us count twice; each rebase is a write to disk."""
ADDRESS_ENDED = "address-ended"
"""Code of WorkFailed when the server refused the download: its address may have run out."""
ADDRESS_TRIES = 3
"""A fresh address comes with the next welcome; a server that refuses that one too means it."""
SKIPPED_AFTER = 3
"""Tries to mark slots on the way back: a new version may have broken the tool, and a reboot needs none."""
SLEPT_LEAST_S = 1.0
RECENT = (1 << 10) - 1
"""Ten rounds of checks."""


def acknowledged(turn: Turn, given: Ack) -> None:
    """Committed items leave the outbox.

    A number that was never given out here tells that our memory is older than the server's (restored from a
    backup): it took our newest items for repetitions, so they are said again under numbers that are new to it.
    """
    state = turn.state
    if given.seq < state.next_seq:
        turn.set(outbox=[item for item in state.outbox if item.seq > given.seq])
        return
    outbox = [msgspec.structs.replace(item, seq=given.seq + 1 + place) for place, item in enumerate(state.outbox)]
    turn.set(outbox=outbox, next_seq=given.seq + 1 + len(outbox))


def welcomed(turn: Turn, given: Welcomed) -> None:
    """In a conflict of identities nothing is said: the gateway commands neither of the two."""
    if given.conflict:
        turn.set(linked=False, asking=None)
        return
    turn.set(linked=True, welcomed=True, asking=None, ask_s=None)
    turn.set(returned=[entry for entry in turn.state.returned if entry.until_s > turn.now_s])
    for entry in turn.state.returned:
        turn.say(entry.message)


def link_lost(turn: Turn, given: LinkLost) -> None:
    turn.set(linked=False, asking=None)


def slots_seen(turn: Turn, given: SlotsSeen) -> None:
    turn.set(slots=given.slots)


def inhibited(turn: Turn, given: Inhibited) -> None:
    turn.set(inhibitors=given.names)


def placed(turn: Turn, given: Placed) -> None:
    turn.set(serving=given.serving)


def noted(turn: Turn, given: Noted) -> None:
    turn.event(given.kind, given.text)


def stopping(turn: Turn, given: Stopping) -> None:
    turn.set(stop=Stop.ORDERLY if given.orderly else Stop.AGENT_ONLY)


def ticked(turn: Turn, given: Ticked) -> None:
    """Time is read from the moment; a long span is written down now and then, so that it survives a cut."""
    way_back = turn.state.way_back
    if way_back is None or way_back.left is None or way_back.left.left_s <= 0:
        return
    if turn.now_s - way_back.left.as_of_s >= REBASE_S:
        left = Remaining(left_s=way_back.left.at(turn.now_s), as_of_s=turn.now_s)
        turn.set(way_back=msgspec.structs.replace(way_back, left=left))


def checked(turn: Turn, given: Checked) -> None:
    before, health = turn.state.rounds, given.health
    good = is_good(health.state)
    unhealthy = health.state is HealthState.UNHEALTHY
    if unhealthy and before.state is not HealthState.UNHEALTHY:
        turn.event(CHECK_FAILED, f"Unhealthy: {'; '.join(health.reasons) or 'its checks fail'}", checks=failing(health))
    turn.set(
        rounds=Rounds(
            number=before.number + 1,
            last_s=turn.now_s,
            state=health.state,
            reason="; ".join(health.reasons),
            bad_in_a_row=0 if good else before.bad_in_a_row + 1,
            unhealthy_in_a_row=before.unhealthy_in_a_row + 1 if unhealthy else 0,
            recent_unhealthy=(before.recent_unhealthy << 1 | unhealthy) & RECENT,
            good_since_s=_since(before.good_since_s, turn.now_s) if good else None,
            not_good_since_s=None if good else _since(before.not_good_since_s, turn.now_s),
            asleep_s=before.asleep_s,
        )
    )
    if turn.state.trial is not None and not good:
        trial = msgspec.structs.replace(turn.state.trial, failed_checks=failing(health))
        turn.set(trial=trial)


def _since(before_s: float | None, now_s: float) -> float:
    return now_s if before_s is None else before_s


def waked(turn: Turn) -> None:
    """Time in which the machine was suspended is no silence of checks, no trial and no soak (rule 4).

    A lease is not prolonged by it: that counts on the clock that goes on meanwhile.
    """
    state = turn.state
    slept_s = turn.moment.asleep_s - state.rounds.asleep_s
    if slept_s < SLEPT_LEAST_S:
        return
    rounds = msgspec.structs.replace(
        state.rounds,
        asleep_s=turn.moment.asleep_s,
        last_s=state.rounds.last_s + slept_s,
        good_since_s=_later(state.rounds.good_since_s, slept_s),
        not_good_since_s=_later(state.rounds.not_good_since_s, slept_s),
    )
    turn.set(rounds=rounds, stage_until_s=_later(state.stage_until_s, slept_s))
    if state.trial is not None:
        turn.set(trial=msgspec.structs.replace(state.trial, until_s=state.trial.until_s + slept_s))


def _later(moment_s: float | None, by_s: float) -> float | None:
    return None if moment_s is None else moment_s + by_s


# --- answers to work ----------------------------------------------------------------------------------------


def believed(state: State, given: Input) -> Input:
    """What the tool says is compared with what it shows: an arming that is not seen has failed (rule 1)."""
    work = state.work[0] if state.work else None
    if not isinstance(given, WorkDone) or work is None or work.id != given.id:
        return given
    next_boot = [slot for slot in given.slots if slot.next_boot]
    if work.kind is WorkKind.ARM and [slot.name for slot in next_boot] != [work.slot]:
        text = f"the tool says that slot {work.slot} is armed and does not show it as next boot"
    elif work.kind is WorkKind.DISARM and (armed := armed_slot(state, given.slots)) is not None:
        text = f"the tool says that it disarmed and shows slot {armed.name} as next boot"
    else:
        return given
    return WorkFailed(id=given.id, code="tool", text=text)


def work_done(turn: Turn, given: WorkDone) -> None:
    """The first work is done: note what it changed. An answer to an older try is none."""
    work = _answered(turn, given.id)
    if work is None:
        return
    turn.set(work=turn.state.work[1:], retry_s=None, work_error="", slots=given.slots)
    match work.kind:
        case WorkKind.STAGE:
            _staged(turn, work)
        case WorkKind.ARM | WorkKind.DISARM:
            _armed(turn, work)
        case WorkKind.MARK_GOOD:
            _marked_good(turn)
        case WorkKind.MARK_BAD:
            _marked_bad(turn, work)
        case WorkKind.REBOOT:
            turn.set(rebooted_s=turn.now_s)
        case WorkKind.PROBE:
            _probed(turn, given)
        case WorkKind.DRAIN:
            drains.drained(turn, given)
        case WorkKind.UNDRAIN:
            drains.undrained(turn, given)
    if turn.state.step not in (Step.ARMING, Step.REBOOTING):
        guard_next_boot(turn)


def _answered(turn: Turn, work_id: int) -> Work | None:
    first = turn.state.work[0] if turn.state.work else None
    return first if first is not None and first.id == work_id else None


def _staged(turn: Turn, work: Work) -> None:
    image = work.image
    assert image is not None, "only an image is staged"
    slot = passive(turn.state)
    turn.set(staged=image.digest, way_back=None)  # what led back was in the slot that is written now (rule 2)
    turn.event("staged", f"Wrote {image.version} to slot {slot.name if slot else 'unknown'} and verified it")


def _armed(turn: Turn, work: Work) -> None:
    operation = turn.state.operation
    if turn.state.step is not Step.ARMING or operation is None:
        return
    if (work.kind is WorkKind.DISARM) == (operation.kind is OperationKind.REBOOT):
        turn.set(armed=True)
        turn.event("armed", f"Boots next: {asked(turn.state)}")


def _marked_bad(turn: Turn, work: Work) -> None:
    """A copy that was withdrawn is neither staged nor a way back any more."""
    way_back = turn.state.way_back
    turn.set(staged=None, way_back=None if way_back is not None and way_back.slot == work.slot else way_back)


def _marked_good(turn: Turn) -> None:
    facts, trial = turn.state.booted, turn.state.trial
    if trial is not None and turn.state.step is Step.CONFIRMING:
        turn.set(trial=msgspec.structs.replace(trial, marked=True))
    if facts is not None and not facts.confirmed:
        turn.set(booted=msgspec.structs.replace(facts, confirmed=True, stuck=False))
        turn.event("confirmed", f"Confirmed {worded(facts)} as good")


def _probed(turn: Turn, given: WorkDone) -> None:
    trial = turn.state.trial
    if turn.state.step is Step.ARMING:
        turn.set(witnesses=given.witnesses)
    elif trial is not None:
        turn.set(trial=msgspec.structs.replace(trial, standing=given.standing))


def failed(handler: Callable[[Turn, WorkFailed], None]) -> Callable[[Turn, WorkFailed], None]:
    """A handler for the failure of the first work.

    Witnesses that cannot be asked have not answered; undraining that fails keeps nothing from going on.
    """

    def work_failed(turn: Turn, given: WorkFailed) -> None:
        work = _answered(turn, given.id)
        if work is None:
            return
        if work.kind is WorkKind.PROBE:
            work_done(turn, WorkDone(id=given.id, slots=turn.state.slots))
        elif work.kind is WorkKind.UNDRAIN:
            drains.undrain_failed(turn, given)
        else:
            handler(turn, given)

    return work_failed


def staging_failed(turn: Turn, given: WorkFailed) -> None:
    """STAGING: only what another try may help is tried again, and within the deadline."""
    if turn.state.work[0].kind is not WorkKind.STAGE:
        try_again(turn, given)
        return
    turn.drop_work()
    if given.code == "untrusted-image":
        turn.end(Result.REFUSED, f"untrusted-image: {given.text}")
    elif not given.transient or (given.code == ADDRESS_ENDED and turn.state.stage_tries >= ADDRESS_TRIES):
        turn.end(Result.STAGE_FAILED, given.text)
        turn.queue(WorkKind.DISARM)  # how far the tool came is not known
    else:
        _pause_staging(turn, given.text)


def _pause_staging(turn: Turn, text: str) -> None:
    tries = turn.state.stage_tries + 1
    longest_s = min(turn.limits.stage_backoff_s * 2 ** min(tries, 16), turn.limits.stage_backoff_most_s)
    # Full jitter: many nodes that lost the same server must not come back together.
    turn.set(
        step=Step.RETRYING,
        stage_tries=tries,
        retry_s=turn.now_s + longest_s * turn.moment.chance,
        work_error=text,
    )


def retry_staging(turn: Turn) -> None:
    """RETRYING: until the deadline, begin again when the pause is over."""
    state = turn.state
    if state.stage_until_s is not None and turn.now_s >= state.stage_until_s:
        text = f"gave up after {turn.limits.stage_s:.0f} s: {state.work_error}"
        turn.drop_work()
        turn.end(Result.STAGE_FAILED, text)
    elif state.retry_s is None or turn.now_s >= state.retry_s:
        turn.set(retry_s=None, work_error="")
        begin_staging(turn)


def retreat_failed(turn: Turn, given: WorkFailed) -> None:
    """ROLLING_BACK: tried again for ever; marks may be left out, for the boot loader counts tries too."""
    work = turn.state.work[0]
    if work.kind is not WorkKind.REBOOT and work.tries >= SKIPPED_AFTER - 1:
        turn.set(work=turn.state.work[1:], retry_s=None, work_error="")
    else:
        try_again(turn, given)
