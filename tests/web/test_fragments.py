from __future__ import annotations

import threading

import pytest

from app.web.filters import duration, event_kind, relative, short_digest, size
from app.web.fragments import FragmentCache
from app.web.preferences import Preferences, Theme, read


def test_an_etag_is_rendered_once() -> None:
    cache = FragmentCache()
    made: list[str] = []

    def render() -> str:
        made.append("x")
        return "text"

    first, kept = cache.get("key", "1", 0.0, render)
    assert not kept
    assert cache.get("key", "1", 9.0, render) == (first, True)
    assert cache.get("key", "2", 9.0, render)[1] is False
    assert len(made) == 2


def test_pace() -> None:
    cache = FragmentCache()
    cache.get("key", "1", 0.0, lambda: "old", pace_s=1.0)
    assert cache.get("key", "2", 0.5, lambda: "new", pace_s=1.0)[0].etag == "1"
    assert cache.get("key", "2", 1.0, lambda: "new", pace_s=1.0)[0].etag == "2"
    assert cache.get("key", "3", 0.9, lambda: "newer", pace_s=1.0)[0].etag == "3", (
        "a clock that went back stops nothing"
    )


def test_the_oldest_goes_first() -> None:
    cache = FragmentCache(most=2)
    for key in ("a", "b", "a", "c"):
        cache.get(key, "1", 0.0, lambda: "text")
    assert cache.get("a", "1", 0.0, lambda: "again")[1]
    assert not cache.get("b", "1", 0.0, lambda: "again")[1]


def test_size_is_bounded() -> None:
    cache = FragmentCache(most_bytes=10_000)
    for number in range(20):
        cache.get(number, "1", 0.0, lambda: "x" * 3000)
    assert sum(cache.get(number, "1", 0.0, lambda: "")[1] for number in (18, 19)) == 2
    assert not cache.get(0, "1", 0.0, lambda: "")[1]


def test_others_wait_for_the_one_that_renders() -> None:
    cache = FragmentCache()
    inside, go_on = threading.Event(), threading.Event()
    made: list[str] = []

    def slow() -> str:
        inside.set()
        assert go_on.wait(10)
        made.append("slow")
        return "text"

    threads = [threading.Thread(target=cache.get, args=("key", "1", 0.0, slow)) for _ in range(5)]
    threads[0].start()
    assert inside.wait(10)
    for thread in threads[1:]:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert made == ["slow"]


def test_a_failed_rendering_leaves_the_place_free() -> None:
    cache = FragmentCache()

    def broken() -> str:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        cache.get("key", "1", 0.0, broken)
    assert cache.get("key", "1", 0.0, lambda: "whole")[0].body == b"whole"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"), (172_799, "47 h"), (172_800, "2 d")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_distances() -> None:
    assert relative(100, 100.5) == "now"
    assert relative(100, 103) == "3 s ago"
    assert relative(400, 100) == "in 5 min"
    assert relative(100, 103, "for") == "3 s"


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1024, "1 KiB"),
        (391 * 2**20, "391 MiB"),
        (1.5 * 2**30, "1.5 GiB"),
        (2**50, "1024 TiB"),
    ],
)
def test_sizes(octets: float, text: str) -> None:
    assert size(octets) == text


def test_digests_and_event_kinds() -> None:
    assert short_digest("sha256:" + "9f2c" + "0" * 56 + "41ab") == "sha256:9f2c…41ab"
    assert short_digest("short") == "short"
    assert event_kind("fell-back") == "bad"
    assert event_kind("something-new") == ""


@pytest.mark.parametrize(
    ("cookies", "expected"),
    [
        ({}, Preferences()),
        ({"twinroot_view": "dark|off"}, Preferences(Theme.DARK, "UTC", False)),
        ({"twinroot_view": "pink|?", "twinroot_zone": "Europe/Berlin"}, Preferences(time_zone="Europe/Berlin")),
        ({"twinroot_zone": "../../etc/passwd"}, Preferences()),
        ({"twinroot_zone": "\0"}, Preferences()),
    ],
)
def test_preferences_out_of_cookies(cookies: dict[str, str], expected: Preferences) -> None:
    assert read(cookies) == expected


def test_a_chosen_zone_wins() -> None:
    assert read({"twinroot_zone": "Europe/Berlin"}, "Asia/Tokyo").time_zone == "Asia/Tokyo"
