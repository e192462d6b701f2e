"""What pages of rollouts show, out of plans and rows: pure functions."""

from __future__ import annotations

from app.core.group_policy import Amount, GroupPolicy, OnFailure
from app.core.holds import Hold, HoldCode
from app.core.plan import Impossible, Plan, Wave, WorstMoment
from app.core.rollout_progress import Progress
from app.core.rollouts import RolloutKind, RolloutState
from app.core.snapshot import Candidate, NodeView, RolloutView, ServiceView, Snapshot
from app.store.rollout_cells import Cell, HeldGroup, WaveCount
from app.web.rollout_holds import WORDS, frees_most, hold_rows
from app.web.rollout_plan_view import plan_view
from app.web.rollout_rate import rate_words
from app.web.rollout_waves import counts_of, wave_rows
from app.web.rollout_words import failure_words

BASE = "/rollouts/7/nodes"


def node(number: int, **given: object) -> NodeView:
    values: dict[str, object] = {
        "id": f"node_{number}", "name": f"web-{number}", "labels": {}, "groups": ("g",), "os_id": "demo",
        "arch": "amd64", "version": "1.0", "digest": "sha256:1", "online": True, "healthy": True, "on_trial": False,
        "soaking": False, "reserved": False, "absent": False, "commandable": True, "placement_known": True,
        "placements": (), "has_local_way_back": True, "staged_digest": "", "pinned_to": "", "pin_digest": "",
        "failed": frozenset(),
    }  # fmt: skip
    return NodeView(**(values | given))  # type: ignore[arg-type]


def rollout(id: str) -> RolloutView:
    return RolloutView(id, id, RolloutKind.UPDATE, RolloutState.DRAFT, GroupPolicy(), (), 0.0)


def candidate(node: int, rollout: int = 0, *, canary: bool = False) -> Candidate:
    return Candidate(node, rollout, "", ready=False, canary=canary, since=0.0)


def snapshot(nodes: int, candidates: tuple[Candidate, ...]) -> Snapshot:
    services = (ServiceView(("shop", "checkout"), 3, 2), ServiceView(("shop", "ledger"), 1, 1))
    return Snapshot(
        0.0,
        tuple(node(number) for number in range(nodes)),
        services,
        (),
        (rollout("mine"), rollout("other")),
        candidates,
    )


def plan(**given: object) -> Plan:
    values: dict[str, object] = {
        "at": 0.0, "admitted": (), "waves": (), "holds": {}, "worst": (), "impossible": (), "absent": (),
        "loses_way_back": (),
    }  # fmt: skip
    return Plan(**(values | given))  # type: ignore[arg-type]


def test_a_plan_shows_each_node_of_its_rollout_once() -> None:
    seen = snapshot(6, (*(candidate(number, canary=number == 0) for number in range(5)), candidate(5, rollout=1)))
    single = Hold(HoldCode.SINGLE_REPLICA, "shop/ledger has a single replica here", "shop/ledger")
    view = plan_view(
        seen,
        plan(
            waves=(Wave(1, (0,), canary=True), Wave(2, (1, 2)), Wave(3, (5,)), Wave(4, (3,))),
            holds={1: Hold(HoldCode.CANARIES, "waits for the canaries"), 4: single},
            worst=(WorstMoment(0, 3, 2, 2, 2), WorstMoment(1, 1, 1, 0, 1)),
            impossible=(Impossible("shop/ledger", "…", (4,), ("another replica",)), Impossible("x", "…", (5,), ())),
            loses_way_back=(1, 5),
        ),
        "mine",
        BASE,
    )
    assert (view.moving, view.held, view.number_of_waves) == (4, 1, 2)
    assert [(row.label, row.nodes) for row in view.waves] == [("Canaries", 1), ("Wave 1", 2), ("Wave 2", 1)]
    assert [(each.name, each.wave) for each in view.nodes][-2:] == [("web-3", 2), ("web-4", None)]
    assert [(row.title, row.nodes) for row in view.holds] == [("Single replica", 1)]
    assert [(row.name, row.wave, row.tight) for row in view.worst] == [
        ("checkout", "wave 1", True),
        ("ledger", "", True),
    ]
    assert [row.count for row in view.impossible] == [1], "what stops another rollout is not this one's concern"
    assert view.impossible[0].service == ("shop", "ledger")
    assert view.loses_way_back == (("node_1", "web-1"),)


def test_allowing_is_offered_only_for_a_single_replica() -> None:
    seen = snapshot(2, (candidate(0), candidate(1)))
    stopped = plan(impossible=(Impossible("shop/checkout", "…", (0, 1), ("another replica",)),))
    assert plan_view(seen, stopped, "mine", BASE).impossible[0].service is None


def test_a_bar_is_full_and_fills_from_the_left() -> None:
    counts = [WaveCount(1, Progress.WAITING, 1), WaveCount(1, Progress.DONE, 3)]
    [row] = wave_rows(counts, None, BASE)
    assert [(part.progress, part.x, part.width) for part in row.parts] == [
        (Progress.DONE, 0.0, 750.0),
        (Progress.WAITING, 750.0, 250.0),
    ]
    assert row.words == "3 done, 1 waiting"
    assert row.parts[0].href == f"{BASE}?wave=1&state=done"


def test_cells_are_one_stop_of_the_tab_key_a_row() -> None:
    cells = [Cell(f"node_{number}", f"<{number}>", 1, Progress.DONE) for number in range(3)]
    [row] = wave_rows(counts_of(cells), cells, BASE)
    assert row.cells is not None
    assert row.cells.count("tabindex=-1") == 2
    assert "&lt;0&gt;: done" in row.cells


def test_every_kind_of_hold_has_words() -> None:
    assert set(WORDS) == set(HoldCode)


def test_holds_are_counted_by_kind_and_lead_to_just_those() -> None:
    groups = [
        HeldGroup(HoldCode.SERVICE_FLOOR, f"shop/s{number}", f"floor of s{number}", number) for number in range(1, 6)
    ]
    [row] = hold_rows([*groups], BASE)
    assert (row.nodes, row.more) == (15, 3)
    assert row.texts[0] == ("floor of s5", 5, f"{BASE}?hold=service-floor&subject=shop%2Fs5")


def test_what_frees_most_is_what_a_person_can_do() -> None:
    budget = HeldGroup(HoldCode.GROUP_BUDGET, "g", "", 90)
    floor = HeldGroup(HoldCode.SERVICE_FLOOR, "shop/checkout", "", 30)
    assert frees_most([budget, floor]) == ("another replica (shop/checkout)", 30)
    assert frees_most([budget]) is None


def test_words_of_rates_and_limits() -> None:
    assert rate_words(102, 3600) == "1.7 a minute"
    assert rate_words(5, 3600) == "5 an hour"
    assert rate_words(0, 3600) == ""
    policy = GroupPolicy(failure_limit=Amount(share=0.02), on_failure=OnFailure.ROLL_BACK)
    assert (
        failure_words(policy)
        == "rolls back when a canary fails, or more than 2 % of those attempted and at least 2 nodes"
    )
