"""A browser without JavaScript on the real application: it has cookies, and submits the forms that are on pages."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

from flask.testing import FlaskClient
from werkzeug.test import TestResponse, encode_multipart

from app.config import Settings
from app.factory import create_app
from app.services.channels import ensure_defaults
from app.services.sign_in import create_login_link
from app.store.database import Database
from tests.server_kit import NOW


@dataclass
class Form:
    """As a browser would submit it, with the values that it starts with."""

    action: str
    method: str
    values: dict[str, str] = field(default_factory=dict)
    choices: dict[str, dict[str, str]] = field(default_factory=dict)
    """Of each select: the words of an option → its value."""
    boxes: set[str] = field(default_factory=set)
    """Names of boxes and radio buttons that are not ticked."""


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self._select = self._textarea = ""
        self._option: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(Form(given.get("action", ""), given.get("method", "get")))
        if not self.forms:
            return
        form = self.forms[-1]
        if tag == "input" and given.get("name"):
            if given.get("type") not in ("checkbox", "radio") or "checked" in given:
                form.values[given["name"]] = given.get("value", "")
            else:
                form.boxes.add(given["name"])
        elif tag == "textarea":
            self._textarea = given["name"]
            form.values[self._textarea] = ""
        elif tag == "select":
            self._select = given["name"]
            form.choices[self._select] = {}
        elif tag == "option" and self._select:
            self._option = given.get("value", "")
            if "selected" in given or self._select not in form.values:
                form.values[self._select] = self._option

    def handle_data(self, data: str) -> None:
        if self._textarea:
            self.forms[-1].values[self._textarea] += data
        elif self._select and self._option is not None:
            self.forms[-1].choices[self._select][data.strip()] = self._option

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            self._select = ""
        elif tag == "option":
            self._option = None
        elif tag == "textarea":
            self._textarea = ""


class Browser:
    """Signed in as `mb` unless `name` is empty. The clock stands at `now` until it is moved."""

    def __init__(self, db: Database, settings: Settings, name: str = "mb") -> None:
        self.db = db
        self.settings = settings
        self.now = NOW
        ensure_defaults(db, NOW)
        self.app = create_app(db, settings, clock=lambda: self.now)
        self.client: FlaskClient = self.app.test_client()
        if name:
            link = f"/sign-in/{create_login_link(db, name, self.now)}"
            assert self.get(link).status_code == 303

    def get(self, path: str, **given: Any) -> TestResponse:
        return self.client.get(path, **{"buffered": True, **given})  # buffered: read and closed, files too

    def forms(self, path: str) -> list[Form]:
        return forms_of(self.get(path))

    def form(self, path: str, action: str = "") -> Form:
        """The form on the page `path` whose action ends with `action`."""
        found = [
            one for one in self.forms(path) if one.method == "post" and one.action.partition("?")[0].endswith(action)
        ]
        assert found, f"no form for {action} on {path}"
        return found[-1]

    def submit(self, path: str, form: Form, **values: Any) -> TestResponse:
        """Send the form of the page `path`, changed by `values`; unknown fields fail, for nobody could type them."""
        unknown = set(values) - set(form.values) - form.boxes - {"image"}
        assert not unknown, f"the form has no {unknown}"
        data: Any = {**form.values, **values}
        content_type = "application/x-www-form-urlencoded"
        if any(not isinstance(value, str) for value in data.values()):
            boundary, data = encode_multipart(data)  # whole: the test client's own encoding leaks a temporary file
            content_type = f"multipart/form-data; boundary={boundary}"
        return self.client.post(
            urljoin(path, form.action),
            data=data,
            content_type=content_type,
            headers={"Origin": self.settings.public_url},
        )

    def fill(self, path: str, action: str = "", **values: Any) -> TestResponse:
        """Open `path`, fill its form in, and send it."""
        return self.submit(path, self.form(path, action), **values)


def forms_of(response: TestResponse) -> list[Form]:
    page = _Forms()
    page.feed(response.text)
    return page.forms
