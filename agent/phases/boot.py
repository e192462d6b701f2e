"""The agent starts: the same boot goes on, a new one is judged by evidence."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agent.evidence import Verdict
from agent.phases.causes import note_boot, unasked_boot, whose, why
from agent.phases.inputs import Started
from agent.phases.leases import call_off, unarm
from agent.phases.model import (
    UNREAD,
    Booted,
    Drained,
    KeptWayBack,
    Remaining,
    Retreat,
    Rounds,
    State,
    Step,
    Stop,
    Trial,
    WorkKind,
    booted,
    lease_lives,
    passive,
)
from agent.phases.trial import queue_way_back, stick
from agent.phases.turn import Turn, target
from agent.phases.words import version_in, worded
from wire.messages import BootCause, Check, OperationKind, Result, Slot

MORE_RETREATS = 2
"""Tries after the first to leave a slot that the machine keeps booting."""
LEADS_BACK = frozenset({Step.CONFIRMING, Step.ROLLING_BACK})
"""Steps in which the passive slot is the one that the machine has to find when the new one fails."""
UNDER_WAY = frozenset({Step.ARMING, Step.REBOOTING, Step.CONFIRMING})
"""Steps in which a new boot is judged against what was expected."""


def start(turn: Turn, given: Started) -> None:
    """Always the first input: take stock, then go on where the last run stopped."""
    before = turn.state
    turn.set(
        boot_id=given.boot_id,
        slots=given.slots,
        os=given.os,
        arch=given.arch,
        stop=Stop.RUNNING,
        linked=False,
        inhibitors=[],
        serving=UNREAD,
        asking=None,
        ask_s=None,
        rounds=Rounds(last_s=turn.now_s, not_good_since_s=turn.now_s, asleep_s=turn.moment.asleep_s),
    )
    if before.boot_id == given.boot_id:
        _same_boot(turn)
    else:
        _forget_old_boot(turn)
        if before.boot_id:
            _new_boot(turn, given, before)
        else:
            _first_boot(turn, given)
    turn.renew_work()
    guard_next_boot(turn)


def guard_next_boot(turn: Turn) -> None:
    """Rule 2: without a live lease the passive slot is not next boot. Going back by itself is no activation."""
    state = turn.state
    slot = armed_slot(state, state.slots)
    if slot is None or lease_lives(state, turn.now_s) or state.step in LEADS_BACK:
        return
    if not any(work.kind is WorkKind.DISARM for work in state.work):
        turn.event("disarmed", f"Took back that {worded(slot)} boots next: there is no lease for it")
        turn.queue(WorkKind.DISARM)


def armed_slot(state: State, slots: Sequence[Slot]) -> Slot | None:
    """The passive slot, when it is what boots next and must not be.

    While the booted slot is not confirmed the other one may be the confirmed one, which a power cut has to boot.
    """
    slot = next((slot for slot in slots if slot.next_boot and not slot.booted), None)
    confirmed = state.booted is not None and state.booted.confirmed
    return slot if slot is not None and (confirmed or slot.good is not True) else None


# --- the same boot ------------------------------------------------------------------------------------------


def _same_boot(turn: Turn) -> None:
    state = turn.state
    if state.trial is not None:
        turn.set(trial=msgspec.structs.replace(state.trial, asked_round=-1, standing=None))
    if state.step in (Step.ARMING, Step.REBOOTING):
        _reboot_did_not_happen(turn)
    elif state.step is Step.DRAINING:
        call_off(turn, "the agent was restarted while draining")  # how far it came is not known
    elif state.step is Step.ROLLING_BACK:
        turn.drop_work()
        queue_way_back(turn)


def _reboot_did_not_happen(turn: Turn) -> None:
    if turn.state.pending is not None or not lease_lives(turn.state, turn.now_s):
        unarm(turn, "the machine did not reboot")
        return
    turn.drop_work()
    turn.set(step=Step.ARMING, armed=False, rebooted_s=None)
    turn.queue(WorkKind.PROBE)  # what runs here is not known any more either


# --- a new boot ---------------------------------------------------------------------------------------------


def _forget_old_boot(turn: Turn) -> None:
    """What was counted on the old boot's clock, or was about to happen in it."""
    state = turn.state
    now_booted = booted(state)
    name = now_booted.name if now_booted else ""
    way_back = state.way_back
    if way_back is not None and way_back.left is not None:
        left = Remaining(left_s=way_back.left.left_s, as_of_s=turn.now_s)
        way_back = msgspec.structs.replace(way_back, left=left)
    keep = [work for work in state.work if work.kind is WorkKind.MARK_BAD and work.slot != name]
    turn.drop_work()
    turn.set(
        work=keep,
        way_back=way_back,
        lease=None,
        relied=None,
        drained=_not_yet_undrained(state.drained),
        returned=[],
        welcomed=False,
        stage_until_s=None,
    )


def _not_yet_undrained(drained: Drained | None) -> Drained | None:
    """An orchestrator remembers across reboots that a node is drained; the pause was one of the old clock."""
    return msgspec.structs.replace(drained, again_s=None) if drained is not None else None


def _first_boot(turn: Turn, given: Started) -> None:
    slot = booted(turn.state)
    if slot is not None:
        turn.set(booted=Booted(slot=slot.name, digest=slot.digest, version=slot.version, confirmed=slot.good is True))
    note_boot(turn, given, BootCause.FIRST_SEEN, "the agent's first start on this node", None)


def _new_boot(turn: Turn, given: Started, before: State) -> None:
    if before.step is Step.ROLLING_BACK:
        _came_back(turn, given, before)
    elif before.step in UNDER_WAY and before.expected is not None:
        _judged(turn, given, before)
    elif before.step is Step.SOAKING:
        _soak_interrupted(turn, given, before)
    else:
        _unasked(turn, given, before)
        _keep_standing(turn)
        if turn.state.operation is not None:
            turn.set(step=Step.HELD, hold=None)


def _judged(turn: Turn, given: Started, before: State) -> None:
    verdict = given.verdict
    if before.step is Step.CONFIRMING and verdict is Verdict.NEVER_SWITCHED:
        verdict = Verdict.FELL_BACK  # it was seen booted, whatever the boot record says now
    elsewhere = _elsewhere_after_reboot(turn, before)
    cause = _cause(before.step, verdict)
    if cause is None:
        unasked_boot(turn, given, before)
    else:
        note_boot(turn, given, cause, why(turn, cause), turn.operation.id)
    if elsewhere:
        # Only a machine that could not boot it any more leaves a slot that nobody asked it to leave.
        _adopt(turn)
        turn.end(Result.FELL_BACK, elsewhere)
    else:
        VERDICTS[verdict](turn, before)


def _elsewhere_after_reboot(turn: Turn, before: State) -> str:
    """What a reboot that should have stayed in its slot came to; empty when it stayed."""
    slot, expected = booted(turn.state), before.expected
    if expected is None or expected.kind is not OperationKind.REBOOT or slot is None or slot.name == expected.slot:
        return ""
    return f"the machine came up in slot {slot.name} instead of slot {expected.slot}"


def _cause(step: Step, verdict: Verdict) -> BootCause | None:
    """What our operation has to do with a boot; None: the machine may know more."""
    if verdict is Verdict.FELL_BACK:
        return BootCause.FALLBACK
    if step is Step.REBOOTING or (step is Step.ARMING and verdict is Verdict.UPDATED):
        return BootCause.OPERATION
    return None


def _updated(turn: Turn, before: State) -> None:
    """Booted into exactly what was expected: on trial (again)."""
    slot, operation = booted(turn.state), turn.operation
    assert slot is not None, "an expected slot was seen booted"
    same_slot = operation.kind is OperationKind.REBOOT
    earlier = before.trial or Trial(until_s=0.0, witnesses=before.witnesses)
    trial = Trial(
        until_s=turn.now_s + operation.confirm_s,
        witnesses=earlier.witnesses,
        failed_checks=earlier.failed_checks,
    )
    turn.set(step=Step.CONFIRMING, trial=trial, armed=False, rebooted_s=None, hold=None, staged=None)
    _take_facts(turn, confirmed=same_slot and before.origin_confirmed)
    other = passive(turn.state)
    if not same_slot and other is not None:
        turn.set(way_back=KeptWayBack(slot=other.name, version=other.version, digest=other.digest))


def _fell_back(turn: Turn, before: State) -> None:
    expected = before.expected
    assert expected is not None, "judged against it"
    checks = before.trial.failed_checks if before.trial is not None else []
    failed = "checks failed on trial: " + ", ".join(check.name for check in checks)
    reason = failed if checks else "did not boot"
    _end_fallen(turn, before, expected.slot, expected.digest, reason, checks)


def _never_switched(turn: Turn, before: State) -> None:
    _take_facts(turn, confirmed=before.origin_confirmed)
    _keep_standing(turn)
    turn.queue(WorkKind.DISARM)
    turn.end(Result.NEVER_SWITCHED, "a new boot, and the expected slot was not tried")


def _unknown(turn: Turn, before: State) -> None:
    """The machine runs something that nobody asked for: do not confirm it, do not write anything."""
    slot = booted(turn.state)
    same = before.booted is not None and slot is not None and before.booted.slot == slot.name
    _take_facts(turn, confirmed=slot is not None and slot.good is True and (same and before.origin_confirmed))
    if turn.state.booted is not None and not turn.state.booted.confirmed:
        stick(turn)
    turn.end(Result.UNKNOWN, "what was booted does not tell whether the operation succeeded")


VERDICTS = {
    Verdict.UPDATED: _updated,
    Verdict.FELL_BACK: _fell_back,
    Verdict.NEVER_SWITCHED: _never_switched,
    Verdict.UNKNOWN: _unknown,
}


def _soak_interrupted(turn: Turn, given: Started, before: State) -> None:
    slot, trial = booted(turn.state), before.trial
    assert trial is not None and before.booted is not None, "a soak has a trial"
    if slot is not None and slot.name == before.booted.slot:
        unasked_boot(turn, given, before)
        turn.set(trial=msgspec.structs.replace(trial, until_s=turn.now_s + turn.operation.soak_s))
        turn.event("soak-restarted", "Rebooted during the soak, which starts over")
        return
    left = next((other for other in turn.state.slots if other.name == before.booted.slot), None)
    if left is not None and left.good is True and not left.next_boot:
        # It did not fail: it is good, and somebody made the other one next boot.
        unasked_boot(turn, given, before)
        _adopt(turn)
        turn.end(Result.UNKNOWN, "somebody booted the other slot during the soak")
        return
    text = f"the other slot was booted during the soak ({whose(turn)})"
    note_boot(turn, given, BootCause.FALLBACK, text, turn.operation.id)
    reason = "the machine left it during the soak"
    _end_fallen(turn, before, before.booted.slot, before.booted.digest, reason, trial.failed_checks)


def _end_fallen(
    turn: Turn, before: State, new_slot: str, digest: str | None, reason: str, checks: Sequence[Check]
) -> None:
    version = target(before)
    _take_facts(turn, confirmed=before.origin_confirmed)
    turn.set(way_back=None)
    turn.remember_failed(version, digest, reason)
    turn.event("fell-back", f"Fell back from {version_in(version, new_slot)}: {reason}", checks=checks)
    _keep_standing(turn)
    slot = booted(turn.state)
    if slot is None or slot.name != new_slot:
        turn.queue(WorkKind.MARK_BAD, slot=new_slot)
    turn.end(Result.FELL_BACK, reason, checks)


def _came_back(turn: Turn, given: Started, before: State) -> None:
    """A boot after going back by itself: seen in the old slot it is over, else it is tried again."""
    retreat, slot = before.retreat, booted(turn.state)
    assert retreat is not None, "going back knows where"
    left = version_in(retreat.from_version, retreat.from_slot)
    note_boot(turn, given, BootCause.FALLBACK, f"on the way back from {left} ({whose(turn)})", turn.operation.id)
    if slot is not None and slot.name == retreat.to_slot:
        _end_retreat(turn, retreat)
        return
    if retreat.tries < MORE_RETREATS:
        turn.drop_work()
        turn.set(retreat=msgspec.structs.replace(retreat, tries=retreat.tries + 1))
        queue_way_back(turn)
        return
    turn.drop_work()
    stick(turn)
    reason = f"could not go back to slot {retreat.to_slot}: {retreat.reason}"
    turn.end(Result.UNKNOWN, reason, retreat.failed_checks)


def _end_retreat(turn: Turn, retreat: Retreat) -> None:
    _take_facts(turn, confirmed=retreat.origin_confirmed)
    turn.set(way_back=None)
    left = version_in(retreat.from_version, retreat.from_slot)
    turn.event("fell-back", f"Fell back from {left}: {retreat.reason}", checks=retreat.failed_checks)
    turn.drop_work()
    _keep_standing(turn)
    if retreat.result is Result.UNREACHABLE:
        turn.queue(WorkKind.DISARM)  # nothing is known against the version: its copy stays as it is
    else:
        turn.queue(WorkKind.MARK_BAD, slot=retreat.from_slot)
    turn.end(retreat.result, retreat.reason, retreat.failed_checks)


def _unasked(turn: Turn, given: Started, before: State) -> None:
    """A boot that no operation of ours asked for."""
    unasked_boot(turn, given, before)
    slot, was = booted(turn.state), before.booted
    if slot is None:
        return
    if was is not None and was.slot == slot.name and was.digest == slot.digest:
        return
    _adopt(turn)


# --- facts --------------------------------------------------------------------------------------------------


def _adopt(turn: Turn) -> None:
    """A slot that nobody asked for runs: confirmed only by the tool's own word, and the other one leads back."""
    slot, other = booted(turn.state), passive(turn.state)
    _take_facts(turn, confirmed=slot is not None and slot.good is True)
    if other is not None:
        free = Remaining(left_s=0.0, as_of_s=turn.now_s)
        turn.set(
            staged=None,
            way_back=KeptWayBack(slot=other.name, version=other.version, digest=other.digest, left=free),
        )


def _take_facts(turn: Turn, *, confirmed: bool) -> None:
    slot = booted(turn.state)
    if slot is not None:
        turn.set(booted=Booted(slot=slot.name, digest=slot.digest, version=slot.version, confirmed=confirmed))


def _keep_standing(turn: Turn) -> None:
    """A confirmed slot that was armed on the way back may have lost its mark: it gets it again."""
    slot, facts = booted(turn.state), turn.state.booted
    if facts is not None and facts.confirmed and slot is not None and slot.good is not True:
        turn.queue(WorkKind.MARK_GOOD)
