"""Who waits is weighed as if it asked: whatever it was told when it asked last."""

from __future__ import annotations

from app.core.group_policy import Amount
from app.core.holds import Hold, HoldCode
from app.core.planner import Standing, admit
from tests.core.plan_fleets import group, node, rollout, snapshot, wants

TOLD = Hold(HoldCode.CANARIES, "waits for 2 canaries to soak")


def test_those_that_were_told_to_wait_are_weighed_like_those_that_ask() -> None:
    fleet = snapshot(
        [node(f"n{number}") for number in range(5)],
        groups=(group(max_unavailable=Amount(count=2)),),
        rollouts=(rollout(size=5),),
        candidates=tuple(wants(number, ready=False, operation_id=f"op{number}", said=TOLD) for number in range(5)),
    )
    standing = Standing.of(fleet)
    assert admit(standing).admitted == ()
    called = admit(standing, {0, 1, 2, 3})
    assert len(called.admitted) == 2
    assert set(called.admitted) <= {0, 1, 2, 3}
    assert {hold.code for hold in called.holds.values()} <= {HoldCode.GROUP_BUDGET, HoldCode.EXPOSURE}
