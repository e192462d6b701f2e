"""After the reboot: confirm, go back by itself, soak."""

from __future__ import annotations

import msgspec

from agent.phases import drains
from agent.phases.gates import failed_here, slots_unclear
from agent.phases.model import KeptWayBack, Remaining, Retreat, Step, Trial, WorkKind, booted, is_good, passive
from agent.phases.orders import give_way, rescue_waits, take_pending_at_once
from agent.phases.turn import Turn, target
from agent.phases.words import worded
from wire.messages import Check, Hold, OperationKind, Result

UNHEALTHY_ROUNDS = 2
"""One bad round may be a hiccup of a check; two in a row are a finding."""
FLAPPING_ROUNDS = 3
"""So many of the last ten in a soak are a finding too, in a row or not."""


# --- CONFIRMING ---------------------------------------------------------------------------------------------


def confirm(turn: Turn) -> None:
    """CONFIRMING: good checks and a welcome, or a person, confirm; the deadline or lost witnesses send back."""
    state, rescued = turn.state, rescue_waits(turn.state)
    if unclear := slots_unclear(state):
        # Neither confirmed nor left: it is not known what.
        turn.set(hold=Hold(code="slots-unclear", text=unclear))
        return
    if state.hold is not None and state.hold.code == "slots-unclear":
        turn.set(hold=None)
    if state.work:
        # A mark that the tool cannot make does not keep an unhealthy slot.
        if state.retry_s is not None and not rescued and _bad_at_deadline(turn):
            turn.drop_work()
            _go_back_unhealthy(turn)
    elif _trial(turn).marked:
        (give_way if rescued else _begin_soak)(turn)
    elif rescued or (_good_now(turn) and state.welcomed):
        turn.set(hold=None)
        turn.queue(WorkKind.MARK_GOOD)
    elif _good_now(turn) and turn.now_s >= _trial(turn).until_s:
        _without_gateway(turn)
    elif _bad_at_deadline(turn):
        _go_back_unhealthy(turn)


def _good_now(turn: Turn) -> bool:
    return is_good(turn.state.rounds.state) and not checks_silent(turn)


def _bad_at_deadline(turn: Turn) -> bool:
    if turn.now_s < _trial(turn).until_s or _good_now(turn):
        return False
    return checks_silent(turn) or _bad_enough(turn)


def checks_silent(turn: Turn) -> bool:
    """Whether no round of checks ended for so long that they count as failed."""
    return turn.now_s - turn.state.rounds.last_s > turn.limits.checks_late_s


def _bad_enough(turn: Turn) -> bool:
    rounds, trial = turn.state.rounds, _trial(turn)
    if rounds.state is None:
        return False
    # A node that stays on trial only because the gateway is away is not sent back by a single bad round.
    return rounds.bad_in_a_row >= (UNHEALTHY_ROUNDS if trial.standing else 1)


def _without_gateway(turn: Turn) -> None:
    """The deadline is over, checks pass, nobody welcomed us: the witnesses decide, anew in each round."""
    trial, number = _trial(turn), turn.state.rounds.number
    if trial.asked_round != number:
        turn.set(trial=msgspec.structs.replace(trial, asked_round=number))
        turn.queue(WorkKind.PROBE)
        return
    if trial.standing is False and turn.operation.kind is not OperationKind.REBOOT and _leads_back(turn):
        _retreat(turn, Result.UNREACHABLE, "neither gateway nor witnesses answered", ())
        return
    text = "on trial: checks pass and the gateway is away"
    turn.set(hold=Hold(code="gateway-away", text=text + ("; witnesses answer" if trial.standing else "")))


def _go_back_unhealthy(turn: Turn) -> None:
    operation, trial = turn.operation, _trial(turn)
    reason = "no round of checks ended" if checks_silent(turn) else turn.state.rounds.reason or "checks did not pass"
    if operation.kind is OperationKind.REBOOT:
        turn.end(Result.UNHEALTHY, f"not healthy after the reboot: {reason}", trial.failed_checks)
        return
    slot = booted(turn.state)
    turn.remember_failed(target(turn.state), slot.digest if slot else None, reason)
    if _leads_back(turn):
        _retreat(turn, Result.FELL_BACK, reason, trial.failed_checks)
    else:
        stick(turn)
        turn.end(Result.UNHEALTHY, f"{reason}; the other slot is no way back", trial.failed_checks)


def _leads_back(turn: Turn) -> bool:
    """Whether the other slot may be booted: nothing known to be bad."""
    slot = passive(turn.state)
    return slot is not None and slot.good is not False and failed_here(turn.state, slot.digest) is None


def stick(turn: Turn) -> None:
    """Neither confirmed nor able to go back: wait for a person."""
    facts = turn.state.booted
    if facts is not None:
        turn.set(booted=msgspec.structs.replace(facts, stuck=True))


# --- ROLLING_BACK -------------------------------------------------------------------------------------------


def _retreat(turn: Turn, result: Result, reason: str, checks: tuple[Check, ...] | list[Check]) -> None:
    old, new = passive(turn.state), booted(turn.state)
    assert old is not None and new is not None, "on trial between two slots"
    turn.event("going-back", f"Goes back to {worded(old)} by itself: {reason}", checks=checks)
    retreat = Retreat(
        result=result,
        reason=reason,
        to_slot=old.name,
        from_slot=new.name,
        from_version=target(turn.state),
        origin_confirmed=turn.state.origin_confirmed,
        failed_checks=list(checks),
    )
    turn.set(retreat=retreat, hold=None, rebooted_s=None, step=Step.ROLLING_BACK)
    queue_way_back(turn)


def queue_way_back(turn: Turn) -> None:
    """The steps back, from the first one: all of them may be repeated. Needs no lease (rule 6)."""
    retreat = turn.state.retreat
    assert retreat is not None, "going back knows where"
    turn.set(rebooted_s=None)
    if retreat.result is not Result.UNREACHABLE:
        turn.queue(WorkKind.MARK_BAD, slot=retreat.from_slot)
    turn.queue(WorkKind.ARM, slot=retreat.to_slot)
    turn.queue(WorkKind.REBOOT)


def go_back(turn: Turn) -> None:
    """ROLLING_BACK: a reboot that does not happen is asked for again."""
    rebooted_s = turn.state.rebooted_s
    if not turn.state.work and (rebooted_s is None or turn.now_s - rebooted_s > turn.limits.reboot_s):
        queue_way_back(turn)


# --- SOAKING ------------------------------------------------------------------------------------------------


def _begin_soak(turn: Turn) -> None:
    operation = turn.operation
    if operation.kind is OperationKind.REBOOT:
        turn.end(Result.SUCCEEDED, "rebooted and confirmed")
        return
    trial = msgspec.structs.replace(_trial(turn), until_s=turn.now_s + operation.soak_s, failed_checks=[])
    rounds = msgspec.structs.replace(turn.state.rounds, recent_unhealthy=0)
    turn.set(step=Step.SOAKING, trial=trial, rounds=rounds, hold=None)


def soak(turn: Turn) -> None:
    """SOAKING: unhealthy rounds end it, the soak time and a good round end it well."""
    rounds = turn.state.rounds
    over = turn.now_s >= _trial(turn).until_s
    drains.unwind(turn)
    if any(work.kind is not WorkKind.UNDRAIN for work in turn.state.work):
        return
    if rounds.unhealthy_in_a_row >= UNHEALTHY_ROUNDS or rounds.recent_unhealthy.bit_count() >= FLAPPING_ROUNDS:
        _end_unhealthy(turn)
    elif over and _good_now(turn):
        _end_soaked(turn)
    elif over and _long_unknown(turn):
        turn.end(Result.UNKNOWN, "confirmed, and at the end of the soak its health is not known")
    else:
        take_pending_at_once(turn)


def _long_unknown(turn: Turn) -> bool:
    not_good_since_s = turn.state.rounds.not_good_since_s
    waited = not_good_since_s is not None and turn.now_s - not_good_since_s > turn.limits.checks_late_s
    return waited or checks_silent(turn)


def _end_unhealthy(turn: Turn) -> None:
    slot, trial = booted(turn.state), _trial(turn)
    reason = turn.state.rounds.reason or "checks did not pass"
    turn.remember_failed(target(turn.state), slot.digest if slot else None, reason)
    turn.end(Result.UNHEALTHY, f"confirmed, but not healthy through the soak: {reason}", trial.failed_checks)


def _end_soaked(turn: Turn) -> None:
    operation, slot, other = turn.operation, booted(turn.state), passive(turn.state)
    version = target(turn.state) or "The slot"
    turn.event("soaked", f"{version} stayed healthy through its soak of {operation.soak_s:.0f} s")
    if other is not None:
        left = Remaining(left_s=operation.keep_way_back_s, as_of_s=turn.now_s)
        turn.set(way_back=KeptWayBack(slot=other.name, version=other.version, digest=other.digest, left=left))
    if slot is not None:
        turn.set(failed=[failed for failed in turn.state.failed if failed.digest != slot.digest])
    turn.end(Result.SUCCEEDED)


# --- IDLE and HELD: a slot that somebody else booted --------------------------------------------------------


def confirm_unasked(turn: Turn) -> None:
    """Passing checks and a welcome confirm a slot that no operation of ours booted, as on joining."""
    state, facts = turn.state, turn.state.booted
    good_since_s = state.rounds.good_since_s
    if state.work or facts is None or facts.confirmed or facts.stuck or not state.welcomed or slots_unclear(state):
        return
    if good_since_s is not None and turn.now_s - good_since_s >= turn.limits.unasked_confirm_s:
        turn.queue(WorkKind.MARK_GOOD)


def _trial(turn: Turn) -> Trial:
    assert turn.state.trial is not None, f"step {turn.state.step} without a trial"
    return turn.state.trial
