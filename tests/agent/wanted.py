"""Images, operations and health as tests want them."""

from __future__ import annotations

from wire.messages import (
    Check,
    CheckState,
    Health,
    HealthState,
    Image,
    Operation,
    OperationKind,
)


def digest(version: str) -> str:
    """A digest that looks like one, made of a version."""
    return "sha256:" + version.encode().hex().rjust(64, "0")


def image(version: str, **changes: str) -> Image:
    fields = {"os": "demo", "arch": "amd64", "url": f"http://127.0.0.1/{version}", **changes}
    return Image(version=version, digest=digest(version), size=1000, **fields)


def operation(
    name: str, kind: OperationKind = OperationKind.ACTIVATE, version: str | None = "2", **more: object
) -> Operation:
    return Operation(
        id=name,
        kind=kind,
        image=image(version) if version is not None else None,
        soak_s=60.0,
        confirm_s=120.0,
        keep_way_back_s=300.0,
        author="ada",
        **more,
    )


def health(state: HealthState = HealthState.HEALTHY) -> Health:
    if state in (HealthState.HEALTHY, HealthState.DEGRADED):
        return Health(state=state)
    check = Check(name="web", state=CheckState.FAILED, text="no answer", output="connection refused")
    return Health(state=state, reasons=["web: no answer."], checks=[check])
