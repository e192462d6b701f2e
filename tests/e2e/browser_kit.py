"""Real Chromium for tests: signed-in pages whose script errors, console errors and CSP violations fail the test."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, sync_playwright

AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
"""As root in a container, and without Chromium's own traffic."""


def missing() -> str:
    """Why there is no browser here; empty when there is one."""
    return "" if chromium() else "Chromium is not installed (Debian: apt-get install chromium)"


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def launch(playwright: Playwright) -> Browser:
    return playwright.chromium.launch(executable_path=chromium(), args=QUIET)


@contextmanager
def launched() -> Iterator[Browser]:
    """Real Chromium, until its tests are through."""
    with sync_playwright() as playwright:
        made = launch(playwright)
        yield made
        made.close()


@dataclass
class Visitor:
    """One signed-in browser profile; `problems` is everything that a clean console must not have."""

    context: BrowserContext
    url: str
    problems: list[str] = field(default_factory=list)

    def page(self, path: str) -> Page:
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.problems.append(f"{page.url}: script error: {error}"))
        page.on("console", self._heard)
        page.goto(self.url + path)
        return page

    @contextmanager
    def expecting(self, *words: str) -> Iterator[None]:
        """Console errors with one of these words belong to what is done meanwhile; all others still count."""
        before = len(self.problems)
        yield
        new = self.problems[before:]
        self.problems[before:] = [each for each in new if not any(word in each for word in words)]

    def _heard(self, message: ConsoleMessage) -> None:
        # A refused policy shows as an error on the console too, so this is also the CSP check.
        if message.type == "error":
            self.problems.append(f"{message.location.get('url')}: {message.text}")


@contextmanager
def visitor(browser: Browser, url: str, login_link: str, **options: Any) -> Iterator[Visitor]:
    """A profile of its own, signed in; leaving it asserts that nothing went wrong in any of its pages."""
    context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
    try:
        made = Visitor(context, url)
        page = context.new_page()
        page.goto(login_link)
        page.close()
        yield made
        assert not made.problems, "\n".join(made.problems)
    finally:
        context.close()


LOADS = 3
"""The quickest counts: whatever else the machine does slows single ones down."""
_ID = re.compile(r"[a-z]+_[0-9a-z]{26}|[0-9]+")
_NO_PAGES = ("/static/", "/nodes.", "/images/blobs/", "/metrics")
_HREFS = "links => links.map(link => new URL(link.getAttribute('href'), location).href)"
"""Also of links within drawings, whose `href` is an object."""
_PLACES = {"after", "before", "from", "sort", "at", "back"}
_MOST_KINDS = 150
"""More would mean that kinds are told apart by what is no kind."""


def interactive_ms(page: Page, address: str, enough_ms: float) -> float:
    """How long the page takes until it can be used, by the browser's own clock; one that took `enough_ms` is loaded
    again."""
    quickest_ms = enough_ms
    for _ in range(LOADS):
        answer = page.goto(address)
        assert answer is not None and answer.ok, f"{address}: {answer.status if answer else 'no answer'}"
        policy = answer.headers["content-security-policy"]
        assert "default-src" in policy and "unsafe" not in policy
        quickest_ms = page.evaluate("() => performance.getEntriesByType('navigation')[0].domInteractive")
        if quickest_ms < enough_ms:
            break
    return quickest_ms


def slow_pages(visitor: Visitor, limit_ms: float, *starts: str) -> tuple[list[str], set[str]]:
    """Follow links from `starts` to one page of each kind; those that take `limit_ms` or more, and all kinds."""
    page, slow = visitor.page(starts[0]), []
    to_do, known = [visitor.url + path for path in starts], {kind_of(visitor.url + path) for path in starts}
    while to_do:
        address = to_do.pop(0)
        if (took_ms := interactive_ms(page, address, limit_ms)) >= limit_ms:
            slow.append(f"{address}: {took_ms:.0f} ms")
        for found in page.eval_on_selector_all("a[href]", _HREFS):
            kind = kind_of(found)
            if found.startswith(visitor.url) and not kind.startswith(_NO_PAGES) and kind not in known:
                known.add(kind)
                to_do.append(found)
        assert len(known) < _MOST_KINDS, known
    page.close()
    return slow, known


def kind_of(address: str) -> str:
    """The address without ids, numbers, values and the place in a list: what is left is one kind of page."""
    parts = urlsplit(address)
    path = "/".join("*" if _ID.fullmatch(part) else part for part in parts.path.split("/"))
    names = sorted({name for name, _ in parse_qsl(parts.query, keep_blank_values=True)} - _PLACES)
    return f"{path}?{'&'.join(names)}" if names else path


def axe_findings(page: Page, rules: Sequence[str] = ()) -> list[str]:
    """What axe-core has against the page as it stands, by these rules or by all, one line each."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(AXE.read_text())
    only = {"runOnly": {"type": "rule", "values": list(rules)}} if rules else {}
    result = page.evaluate("options => axe.run(document, options)", {"resultTypes": ["violations"], **only})
    return [
        f"{page.url}: {violation['id']}: {node['target']} {node['failureSummary']}"
        for violation in result["violations"]
        for node in violation["nodes"]
    ]
