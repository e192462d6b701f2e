"""The address of a rollout: a draft shows its plan, anything else how it goes."""

from __future__ import annotations

from functools import partial

from flask import Blueprint, Response
from flask.typing import ResponseReturnValue

from app.core.rollouts import RolloutState
from app.web.context import read
from app.web.rollout_plan import list_planned, save_snapshot, show_plan
from app.web.rollout_show import found, list_rows, watch

blueprint = Blueprint("rollout_page", __name__)


@blueprint.get("/rollouts/<key>")
def show(key: str) -> ResponseReturnValue:
    rollout = read(partial(found, key=key))
    return show_plan(rollout) if rollout.state is RolloutState.DRAFT else watch(rollout)


@blueprint.get("/rollouts/<key>/snapshot")
def snapshot(key: str) -> Response:
    """The fleet as its plan sees it now, as a file for `twinroot plan --snapshot`."""
    return save_snapshot(read(partial(found, key=key)))


@blueprint.get("/rollouts/<key>/nodes")
def nodes(key: str) -> ResponseReturnValue:
    rollout = read(partial(found, key=key))
    return list_planned(rollout) if rollout.state is RolloutState.DRAFT else list_rows(rollout)
