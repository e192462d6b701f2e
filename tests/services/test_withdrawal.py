"""Where channels step back to when their image is withdrawn: never to what they were not promoted to again."""

from __future__ import annotations

import pytest

from app.services.channels import create, promote
from app.services.withdrawal import restore, steps_back, withdraw
from app.store import channels
from app.store.database import Database
from tests.server_kit import NOW, OPERATOR, add_image


class Story:
    """A channel that is led from image to image; what is withdrawn and taken back is named by version."""

    def __init__(self, db: Database) -> None:
        self.db, self.now = db, NOW
        self.channel_id = create(db, OPERATOR, "rc", "test", NOW)
        with db.write() as change:
            self.images = {version: add_image(change.conn, version) for version in ("1.0", "2.0", "3.0", "4.0")}

    def play(self, story: str) -> str | None:
        """What the channel points at after: `2.0` promotes, `-2.0` withdraws, `+2.0` takes that back."""
        for deed in story.split():
            self.now += 60
            image_id = self.images[deed.lstrip("+-")]
            if deed.startswith("-"):
                told = self._told(image_id)
                withdraw(self.db, OPERATOR, image_id, "cve", self.now)
                assert told in ([], [self.head()]), "the dialog says before what becomes of the channel"
            elif deed.startswith("+"):
                restore(self.db, OPERATOR, image_id, "harmless", self.now)
            else:
                seen = self.images.get(self.head() or "")
                promote(self.db, OPERATOR, self.channel_id, image_id, seen_image_id=seen, reason="next", now=self.now)
        return self.head()

    def head(self) -> str | None:
        with self.db.read() as conn:
            return next((move.version for move in channels.pointers(conn) if move.channel == "rc"), None)

    def _told(self, image_id: str) -> list[str | None]:
        with self.db.read() as conn:
            return [one.version for one in steps_back(conn, image_id)]


@pytest.mark.parametrize(
    ("story", "head"),
    [
        ("1.0 2.0 -2.0", "1.0"),
        ("1.0 -1.0", None),
        ("1.0 2.0 3.0 -2.0 -3.0", "1.0"),
        ("1.0 2.0 3.0 -3.0 +3.0", "2.0"),
        ("1.0 2.0 3.0 -3.0 +3.0 -2.0", "1.0"),  # nobody promoted 3.0 again
        ("1.0 2.0 3.0 -3.0 +3.0 -2.0 -1.0", None),
        ("1.0 2.0 3.0 -3.0 +3.0 3.0 -3.0", "2.0"),
        ("1.0 2.0 3.0 -3.0 +3.0 4.0 -2.0 -4.0", "1.0"),
        ("1.0 2.0 3.0 2.0 -2.0", "1.0"),  # somebody led it away from 3.0
        ("1.0 3.0 2.0 -2.0", "1.0"),
        ("3.0 2.0 -2.0", None),  # forth is for a person
    ],
)
def test_a_channel_steps_back_to_what_led_to_its_image(database: Database, story: str, head: str | None) -> None:
    assert Story(database).play(story) == head
