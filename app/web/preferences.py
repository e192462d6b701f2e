"""How the reader wants pages: theme, density, time zone, single keys.

Cookies: they belong to the browser, not the person.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from flask import Blueprint, g, redirect, request
from flask.typing import ResponseReturnValue

from app.core.errors import Invalid
from app.services.sign_in import set_time_zone
from app.web.context import console, session, session_or_none
from app.web.htmx import render
from app.web.security import local_path

blueprint = Blueprint("preferences", __name__)

VIEW_COOKIE = "twinroot_view"
ZONE_COOKIE = "twinroot_zone"
"""Written by app.js: the browser's own zone."""
_COOKIE_AGE_S = 400 * 24 * 3600
"""The longest that browsers keep a cookie."""


class Theme(StrEnum):
    SYSTEM = "system"
    LIGHT = "light"
    DARK = "dark"


class Density(StrEnum):
    COMFORTABLE = "comfortable"
    COMPACT = "compact"


@dataclass(frozen=True, slots=True)
class Preferences:
    theme: Theme = Theme.SYSTEM
    time_zone: str = "UTC"
    keys: bool = True
    density: Density = Density.COMFORTABLE

    @property
    def zone(self) -> ZoneInfo:
        return _zone(self.time_zone) or ZoneInfo("UTC")


def preferences() -> Preferences:
    """Of this request; made once."""
    if "preferences" not in g:
        found = session_or_none()
        g.preferences = read(request.cookies, found.time_zone if found else "")
    return cast(Preferences, g.preferences)


def read(cookies: Mapping[str, str], chosen_zone: str = "") -> Preferences:
    """The zone chosen for the session wins over the browser's; whatever is wrong in a cookie counts as not set."""
    theme, keys, density = [*cookies.get(VIEW_COOKIE, "").split("|"), "", ""][:3]
    return Preferences(
        theme=Theme(theme) if theme in tuple(Theme) else Theme.SYSTEM,
        time_zone=next((name for name in (chosen_zone, cookies.get(ZONE_COOKIE, "")) if _zone(name)), "UTC"),
        keys=keys != "off",
        density=Density(density) if density in tuple(Density) else Density.COMFORTABLE,
    )


@functools.lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a name out of a cookie may be anything
        return None


@blueprint.get("/preferences")
def show() -> str:
    zones = sorted(available_timezones())
    return render("preferences.html", zones=zones, back=local_path(request.args.get("back")) or "/")


@blueprint.post("/preferences")
def save() -> ResponseReturnValue:
    """What a form does not ask for stays, except a box that was not ticked."""
    form = request.form
    theme = form.get("theme", preferences().theme)
    if theme not in tuple(Theme):
        raise Invalid("theme", "The theme is system, light or dark.")
    density = form.get("density", preferences().density)
    if density not in tuple(Density):
        raise Invalid("density", "The density is comfortable or compact.")
    if zone := form.get("time_zone", ""):
        set_time_zone(console().db, session(), zone)
    response = redirect(local_path(form.get("back")) or "/", 303)
    value = f"{theme}|{'on' if form.get('keys') else 'off'}|{density}"
    secure = console().settings.secure_cookies
    response.set_cookie(VIEW_COOKIE, value, max_age=_COOKIE_AGE_S, samesite="Lax", secure=secure, httponly=True)
    return response
