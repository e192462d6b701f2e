"""The planner: from a fleet snapshot to what may happen now. Pure.

`admit(Standing)` is what every tick of the conductor runs. Its parts are in app.core.planning; docs/planner.md tells
how they go together.
"""

from __future__ import annotations

from app.core.planning.admission import Admissions, admit
from app.core.planning.standing import Standing

__all__ = ["Admissions", "Standing", "admit"]
