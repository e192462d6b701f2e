"""An operator without JavaScript: signs in by a link, reads pages, submits the forms that are on them."""

from __future__ import annotations

import html
import http.cookiejar
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from html.parser import HTMLParser


class Form:
    """A form as a browser would submit it: action, method, and the values it starts with."""

    def __init__(self, action: str, method: str) -> None:
        self.action = action
        self.method = method
        self.values: dict[str, str] = {}
        self.fields: set[str] = set()
        """Also those that are not sent while nothing is chosen."""


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self._select = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(Form(given.get("action", ""), given.get("method", "get").lower()))
        elif self.forms and tag == "input" and given.get("name"):
            self.forms[-1].fields.add(given["name"])
            if given.get("type") in ("checkbox", "radio") and "checked" not in given:
                return
            self.forms[-1].values[given["name"]] = given.get("value", "")
        elif self.forms and tag == "textarea" and given.get("name"):
            self.forms[-1].fields.add(given["name"])
            self.forms[-1].values[given["name"]] = ""
        elif tag == "select" and self.forms:
            self._select = given.get("name", "")
            self.forms[-1].fields.add(self._select)
        elif tag == "option" and self.forms and self._select and ("selected" in given):
            self.forms[-1].values[self._select] = given.get("value", "")
        elif tag == "option" and self.forms and self._select:
            self.forms[-1].values.setdefault(self._select, given.get("value", ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            self._select = ""


class Operator:
    """`get` and `submit`; a page that answers with an error raises nothing: look at `status` and `text`."""

    def __init__(self, url: str, login_link: str) -> None:
        self.url = url
        self._cookies = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self._cookies))
        self.status = 0
        self.text = ""
        self.get(login_link)

    def get(self, path: str) -> str:
        return self._open(urllib.request.Request(urllib.parse.urljoin(self.url, path)))

    def nodes(self, query: str = "") -> dict[str, dict[str, object]]:
        """The Nodes page as JSON, by name; `query` is its filter."""
        path = "/nodes.json?" + urllib.parse.urlencode({"q": query})
        return {row["name"]: row for row in json.loads(self.get(path))}

    @property
    def cookies(self) -> str:
        """As a browser sends them."""
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in self._cookies)

    def submit(self, path: str, action: str, *, origin: str | None = None, **values: str) -> str:
        """Open `path`, find the form whose action ends with `action`, fill it in and submit it.

        `origin`: what the browser says of the page that the form is on, where that is not the console.
        """
        page = _Forms()
        page.feed(self.get(path))
        matching = [form for form in page.forms if form.action.split("?")[0].endswith(action)]
        if not matching:
            raise AssertionError(f"no form for {action} on {path}: {self.visible_text()}")
        form = matching[0]
        unknown = set(values) - form.fields
        if unknown:
            raise AssertionError(f"the form {action} has no field {unknown}; it has {form.fields}")
        body = urllib.parse.urlencode({**form.values, **values}).encode()
        target = urllib.parse.urljoin(urllib.parse.urljoin(self.url, path), form.action)
        return self._open(
            urllib.request.Request(target, data=body, headers={"Origin": origin or self.url}, method="POST")
        )

    def act(self, node_id: str, action: str, **values: str) -> str:
        """One of the node page's actions, through its confirmation page."""
        values.setdefault("reason", f"test: {action}")
        return self.submit(f"/nodes/{node_id}/{action}", f"/{action}", **values)

    def _open(self, request: urllib.request.Request) -> str:
        try:
            with self._opener.open(request, timeout=20) as answer:
                self.status, self.text = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                self.status, self.text = error.code, error.read().decode()
        return self.text

    def visible_text(self) -> str:
        """The last page's text without tags, for assertions on what people read."""
        return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", self.text)))
