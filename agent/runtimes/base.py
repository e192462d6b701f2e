"""What the agent needs of a container engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from wire.messages import Placement


class Runtime(Protocol):
    """One container engine on this node; one that hangs or cannot be read yields unknown, never empty."""

    name: str

    async def placement(self) -> Placement:
        """Containers as of now, in limited time; `known=False` with the reason otherwise. Never raises."""
        ...

    def changes(self) -> AsyncIterator[None]:
        """Yields once per change worth reading the placement again; reconnects by itself, for ever."""
        ...
