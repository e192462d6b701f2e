"""Real Chromium for tests: signed-in pages whose script errors, console errors and CSP violations fail the test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright

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


def axe_findings(page: Page) -> list[str]:
    """What axe-core has against the page as it stands, one line each."""
    page.evaluate(AXE.read_text())
    result = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{page.url}: {violation['id']}: {node['target']} {node['failureSummary']}"
        for violation in result["violations"]
        for node in violation["nodes"]
    ]
