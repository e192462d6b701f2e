"""A lease holds for the containers that the server knew of when it was asked for."""

from __future__ import annotations

import pytest

from agent.phases import guard
from agent.phases.inputs import Moment
from agent.phases.model import Serving, Step, WorkKind
from agent.phases.table import step
from tests.agent.stories import codes, ready
from tests.agent.wanted import operation
from tests.agent.world import World, joined
from wire.messages import Hold, LeaseGrant, LeaseRequest, LeaseReturn, LeaseWait

HANGS = Serving(reason="the engine hangs")


def asking_with(serving: Serving) -> World:
    world = joined()
    world.place(serving)
    return ready(world=world)


def known(**replicas: int) -> Serving:
    return Serving(known=True, replicas=replicas)


def kinds_said(world: World) -> list[type]:
    return [type(message) for message in world.sent]


@pytest.mark.parametrize(
    ("then", "now"),
    [
        (known(web=1), known(web=2)),
        (known(web=2), known(web=1, db=1)),
        (known(), known(db=1)),
        (known(web=1), HANGS),
        (HANGS, known()),
    ],
)
def test_a_grant_for_another_placement_goes_back_and_is_asked_for_anew(then: Serving, now: Serving) -> None:
    world = asking_with(then)
    nonce = world.state.asking.nonce
    world.place(now)
    world.grant()
    world.run()
    assert world.state.step is Step.READY and WorkKind.PROBE not in world.done
    assert kinds_said(world) == [LeaseRequest, LeaseReturn, LeaseRequest]
    assert world.state.asking is not None and world.state.asking.nonce != nonce
    assert codes(world) == ["placement-changed" if now.known else "placement-unknown"]
    world.grant()
    world.run()
    assert world.state.step is Step.CONFIRMING, "the server has decided for what runs here now"


@pytest.mark.parametrize(
    ("then", "now"), [(known(web=2), known(web=1)), (known(web=2), known()), (HANGS, HANGS), (known(), known())]
)
def test_what_left_or_stayed_unknown_keeps_the_lease(then: Serving, now: Serving) -> None:
    world = asking_with(then)
    world.place(now)
    world.grant()
    world.run()
    assert world.state.step is Step.CONFIRMING


def test_the_return_says_what_came() -> None:
    world = asking_with(known(web=1))
    world.place(known(web=2, db=1))
    world.grant()
    world.run()
    [given_back] = [message for message in world.sent if isinstance(message, LeaseReturn)]
    assert given_back.reason == "containers moved here since it asked: db, web"


def test_many_services_are_counted_and_not_all_named() -> None:
    came = {f"s{number}": 1 for number in range(8)}
    state = ready().state
    assert state.relied == known()
    world = asking_with(known())
    world.place(Serving(known=True, replicas=came))
    found = guard.objection(world.state)
    assert found is not None and found.text.endswith("s0, s1, s2, s3, s4 and 3 more")


@pytest.mark.parametrize("now", [known(web=1), HANGS])
def test_what_came_between_the_grant_and_arming_counts(now: Serving) -> None:
    world = asking_with(known())
    world.grant()
    assert world.state.step is Step.ARMING
    world.serving = now  # the reading directly before arming shows it
    world.run()
    assert WorkKind.ARM not in world.done and world.state.step is Step.READY
    assert codes(world) == ["placement-changed" if now.known else "placement-unknown"]
    assert kinds_said(world)[-1] is LeaseRequest


def test_what_came_while_the_slot_was_armed_stops_the_reboot() -> None:
    world = asking_with(known())
    world.grant()
    world.one()  # the probe
    armed = world.todo[0]
    assert armed.work.kind is WorkKind.ARM
    world.place(known(web=1))
    world.run()
    assert WorkKind.REBOOT not in world.done and world.next_boot == world.booted == "a"


def test_what_came_while_draining_stops_it() -> None:
    world = joined()
    world.desire(1, operation("op", drain="move", drain_s=60.0))
    world.run()
    world.grant()
    world.place(known(web=1))
    assert world.state.step is Step.READY and world.state.lease is None
    world.run()
    assert not world.drained_by and WorkKind.ARM not in world.done


def test_a_grant_may_rest_on_the_oldest_unanswered_request() -> None:
    """The server repeats one lease for requests that come again, and has decided on what it knew at the first."""
    world = asking_with(known(web=1))
    world.place(known(web=2))
    world.wait(11)
    assert world.state.asking.earlier
    world.grant()
    world.run()
    assert world.state.step is Step.READY and LeaseReturn in kinds_said(world)
    world.grant()
    world.run()
    assert world.state.step is Step.CONFIRMING


@pytest.mark.parametrize(("first", "second"), [(known(web=1), HANGS), (HANGS, known(web=1))])
def test_unanswered_requests_of_which_one_knew_nothing_may_rest_on_neither(first: Serving, second: Serving) -> None:
    world = asking_with(first)
    world.place(second)
    world.wait(11)
    world.grant()
    world.run()
    assert world.state.step is Step.READY and LeaseReturn in kinds_said(world)


def test_a_lost_connection_does_not_make_the_grant_newer() -> None:
    world = asking_with(known())
    world.lose_link()
    world.place(known(web=1))
    world.welcome()
    world.run()
    assert world.state.relied == known()
    world.grant()
    world.run()
    assert world.state.step is Step.READY and LeaseReturn in kinds_said(world)


def test_after_a_wait_the_next_request_stands_for_itself() -> None:
    world = asking_with(known())
    world.place(known(web=1))
    hold = Hold(code="service-floor", text="later")
    world.give(LeaseWait(operation_id="op", nonce=world.state.asking.nonce, hold=hold, retry_s=5.0))
    world.wait(6)
    world.grant()
    world.run()
    assert world.state.step is Step.CONFIRMING


def test_a_restarted_agent_looks_again_before_it_arms() -> None:
    world = asking_with(known(web=1))
    world.grant()
    world.one()
    assert world.state.step is Step.ARMING
    world.crash()
    assert world.todo[0].work.kind is WorkKind.PROBE
    world.run()
    assert world.state.step is Step.CONFIRMING


def test_the_least_of_two_is_the_least_of_each_service() -> None:
    assert guard.least(known(web=2, db=1), known(web=1, mq=1)) == known(web=1)
    assert guard.least(None, HANGS) == HANGS


def test_the_request_follows_the_return_in_one_answer() -> None:
    world = asking_with(known())
    world.place(known(web=1))
    state = world.state
    grant = LeaseGrant(lease_id="l", operation_id="op", nonce=state.asking.nonce, duration_s=60.0)
    _, commands = step(state, grant, Moment(boot_s=world.boot_s, wall=0.0, nonce="fresh"))
    assert [type(command.message) for command in commands] == [LeaseReturn, LeaseRequest]
