"""Fixtures of the console's tests."""

from __future__ import annotations

import pytest

from app.config import Settings
from app.store.database import Database
from tests.server_kit import NOW
from tests.web.console_kit import Browser
from tests.web.seed import seed


@pytest.fixture
def browser(database: Database, settings: Settings) -> Browser:
    """Signed in, on an empty fleet."""
    return Browser(database, settings)


@pytest.fixture
def seeded(database: Database, settings: Settings) -> Browser:
    """Signed in, on a fleet of forty nodes in every state."""
    seed(database, 40, NOW)
    return Browser(database, settings)
