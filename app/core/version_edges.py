"""Which versions lead to an image: those that must be passed through first, and those it is not reached from. Pure."""

from __future__ import annotations

from app.core.snapshot import TargetView
from app.core.versions import version_key


def edge(target: TargetView, booted_version: str) -> str | None:
    """Why a node on `booted_version` cannot go to `target` directly, as a clause; None where it can.

    A version that must be passed counts as passed by every node that runs it or a later one.
    """
    if booted_version in target.not_from:
        return f"{target.version} must not be reached from {booted_version}"
    booted = version_key(booted_version)
    if not target.must_pass or any(version_key(version) <= booted for version in target.must_pass):
        return None
    return f"must pass {' or '.join(target.must_pass)} on the way to {target.version}"
