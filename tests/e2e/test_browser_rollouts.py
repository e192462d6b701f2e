"""A rollout over two hundred simulated nodes in Chromium: composed, planned, started, watched, stopped, sent back."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from playwright.sync_api import Browser, Page, expect

from app.commands.groups import group
from app.config import load_settings
from sim.local import LocalProcess, wait_until
from tests.e2e.browser_kit import Visitor, axe_findings, interactive_ms, launched, missing, slow_pages, visitor
from tests.e2e.kit import ControlPlane, publish
from tests.e2e.ledger import Ledger

pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(missing()), reason=missing())]

NODES = 200
LONG_MS = 180_000
"""Two hundred reboots and soaks share two busy cores with control plane and browser."""
INTERACTIVE_MS = 1000
SCENARIO = f"""
seed = 11
[fleet]
nodes = {NODES}
os = "twinroot-demo"
labels = {{ role = "edge" }}
zones = ["a", "b", "c"]
[durations]
boot_s = 0.5
shutdown_s = 0.2
containers_s = 0.2
download_mib_s = 50
checks_s = 2
trial_checks_s = 0.5
[[services]]
name = "ledger"
scope = "shop"
replicas = 1
[[faults]]
kind = "no-boot"
version = "1.2.0"
""" + "".join(f'[[services]]\nname = "api-{number}"\nscope = "shop"\nreplicas = 3\n' for number in range(8))
"""A floor of 2 each: eight nodes with an api may move at once, and those without any service."""
POLICY = (
    "canaries=2", "canary_soak_s=1s", "max_unavailable=60%", "soak_s=1s", "confirm_s=20s", "stage_jitter_s=0s",
    "stage_parallel=200", "failure_limit=20%",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as made:
        yield made


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """With the group edge of all simulated nodes, joined and healthy on 1.0.0."""
    folder = tmp_path_factory.mktemp("rollouts")
    made = ControlPlane(folder)
    made.start()
    fleet = LocalProcess("sim", [], folder / "sim.log", made.environ)
    try:
        made.run("policy", "set", "soak_s=1", "confirm_s=20", "lease_s=30", "--reason", "tests")
        publish(made, folder)
        grouped = ["add", "edge", *POLICY, "--selector", "role=edge", "--reason", "tests"]
        done = CliRunner().invoke(group, grouped, obj=load_settings(made.environ))
        assert done.exit_code == 0, done.output
        fleet = simulated(made, folder)
        ledger = Ledger.of_file(folder / "control-plane" / "twinroot.db")
        wait_until(lambda: healthy(ledger) == NODES, "all simulated nodes are healthy", 120)
        yield made
    finally:
        fleet.stop()
        made.stop()


def simulated(plane: ControlPlane, folder: Path) -> LocalProcess:
    _, _, url, token, _, fingerprint = plane.join_command("--admit", "--uses", "500")
    scenario = folder / "fleet.toml"
    scenario.write_text(SCENARIO)
    options = ["--url", url, "--token", token, "--fingerprint", fingerprint]
    made = LocalProcess(
        "sim", [sys.executable, "-m", "app.cli", "sim", str(scenario), *options], folder / "sim.log", plane.environ
    )
    made.start()
    return made


def healthy(ledger: Ledger) -> int:
    rows = ledger.nodes()
    return sum(row["connection"] == "online" and row["health_state"] == "healthy" for row in rows)


@pytest.fixture
def operator(browser: Browser, plane: ControlPlane) -> Iterator[Visitor]:
    with visitor(browser, plane.url, plane.login_link()) as made:
        yield made


def compose(page: Page, version: str) -> None:
    """From the list to the plan of a draft."""
    page.get_by_role("link", name="Compose a rollout").first.click()
    page.get_by_role("link", name="Choose the group edge").click()
    page.get_by_label("Where to").select_option(f"version:{version}")
    page.get_by_label("Reason").fill(f"to {version}")
    page.get_by_role("button", name="Draft it and show the plan").click()
    expect(page.locator(".state-now").first).to_have_text("draft")


def act(page: Page, action: str, *, reason: str = "") -> None:
    """Click an action, fill its dialog in, and confirm."""
    page.get_by_role("link", name=action, exact=True).first.click()
    dialog = page.locator("#panel-dialog")
    expect(dialog).to_be_visible()
    if action == "Start":
        confirm = dialog.get_by_label(re.compile("^Type "))
        if confirm.count():
            confirm.fill("edge")
        anyway = dialog.get_by_label(re.compile("start anyway"))
        if anyway.count():
            anyway.check()
    if reason:
        dialog.get_by_label("Reason").fill(reason)
    dialog.locator("button.primary").click()
    expect(dialog).not_to_be_visible()


def state(page: Page, word: str) -> None:
    expect(page.locator(".head .state-now")).to_have_text(word, timeout=LONG_MS)


def tile(page: Page, word: str) -> int:
    """The figure of a tile; 0 where there is none."""
    found = page.locator(".stats a", has_text=re.compile(rf"\d\s*{word}$")).locator("b")
    return int(found.first.inner_text().replace(",", "")) if found.count() else 0


def test_a_rollout_from_its_plan_to_its_end_and_back(operator: Visitor) -> None:
    page = operator.page("/rollouts")
    compose(page, "1.1.0")
    expect(page.locator("main")).to_contain_text("Services that make it impossible")
    expect(page.locator("main")).to_contain_text("ledger")
    page.get_by_role("link", name="Allow it to move").first.click()
    page.locator("#panel-dialog").get_by_label("Reason").fill("nobody books at night")
    page.locator("#panel-dialog button.primary").click()
    expect(page.locator("main")).not_to_contain_text("Services that make it impossible")
    assert tile(page, "will move") == NODES
    act(page, "Start")
    state(page, "running")
    expect(page.locator(".waves .p-done").first).to_be_visible(timeout=LONG_MS)

    act(page, "Pause", reason="a look")
    state(page, "paused")
    desk = operator.page("/")
    freeze(desk, "an audit")
    page.bring_to_front()
    act(page, "Resume")
    expect(page.locator(".holds")).to_contain_text("Freeze", timeout=LONG_MS)
    desk.bring_to_front()
    thaw(desk)
    page.bring_to_front()
    state(page, "succeeded")
    assert tile(page, "done") == NODES

    page.get_by_role("link", name="Replay").first.click()
    expect(page.get_by_role("button", name="Play")).to_be_visible()  # its script is there
    page.get_by_role("slider").focus()
    page.keyboard.press("End")
    expect(page.locator(".waves .p-done")).to_have_count(NODES, timeout=LONG_MS)

    page.go_back()
    act(page, "Roll back", reason="latency doubled")
    state(page, "running")
    expect(page.locator("main")).to_contain_text("The way back of")
    state(page, "succeeded")  # what let ledger go forth lets it go back
    assert tile(page, "done") == NODES


def test_a_bad_image_halts_at_its_canaries_and_says_why(operator: Visitor) -> None:
    page = operator.page("/rollouts")
    compose(page, "1.2.0")
    act(page, "Start")
    state(page, "halted")
    expect(page.locator("main")).to_contain_text("Canary")
    assert tile(page, "failed") <= 2, "nobody but canaries was exposed"
    expect(page.locator(".two-ways")).to_contain_text(
        "Every node that this rollout touched goes to the version that it had"
    )
    act(page, "Roll back", reason="it is bad")
    state(page, "rolled back")


def freeze(desk: Page, reason: str, until: str = "") -> None:
    desk.goto(f"{desk.url}freezes/new")
    desk.get_by_label("Until").fill(until)
    desk.get_by_label("Reason").fill(reason)
    desk.get_by_role("button", name="Freeze").click()
    expect(desk.locator(".freeze-banner")).to_contain_text("The whole fleet is frozen")
    expect(desk.locator(".freeze-banner")).to_contain_text(reason)


def thaw(desk: Page) -> None:
    """From the list of freezes."""
    desk.get_by_role("link", name="Lift…").click()
    desk.get_by_label("Reason").fill("it is over")
    desk.get_by_role("button", name="Lift").click()
    expect(desk.locator(".freeze-banner")).not_to_contain_text("is frozen")


def test_every_page_is_quick_and_axe_finds_nothing(operator: Visitor) -> None:
    """Of a draft, of a rollout that is under way and of one that ended; light, dark, and on a phone."""
    desk = operator.page("/")
    freeze(desk, "so that nothing moves", f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%dT%H:%M}")
    lift = str(desk.get_by_role("link", name="Lift…").first.get_attribute("href"))
    page = operator.page("/rollouts")
    compose(page, "1.1.0")
    here = page.url.removeprefix(operator.url)
    desk.goto(f"{operator.url}/images")
    desk.get_by_role("link", name="1.1.0").first.click()
    withdraw = desk.url.removeprefix(operator.url) + "/withdraw"
    desk.goto(f"{operator.url}/groups")
    desk.get_by_role("link", name="edge", exact=True).click()
    group = desk.url.removeprefix(operator.url)
    desk.close()
    look(operator, "/", "/rollouts", "/rollouts/new", "/rollouts/new?group=edge", here, f"{here}/start")
    look(operator, "/services", "/service?scope=shop&name=api-1", "/services/what-if?q=label:zone%3Da", "/attention")
    look(operator, "/groups", group, f"{group}/edit", "/freezes", "/freezes/new", lift, withdraw)
    act(page, "Start")
    state(page, "running")
    look(operator, here, f"{here}/pause", f"{here}/roll-back", f"{here}/replay", f"{here}/nodes")
    slow, kinds = slow_pages(operator, INTERACTIVE_MS, "/", here)
    assert slow == []
    assert {"/nodes/*", "/rollouts/*", "/groups/*/edit", "/service?name&scope", "/freezes/*/end"} <= kinds
    act(page, "Abort", reason="enough seen")
    state(page, "aborted")
    look(operator, here, f"{here}/replay", f"{here}/reverse")
    page.goto(f"{operator.url}/freezes")
    thaw(page)


def look(visitor: Visitor, *paths: str) -> None:
    """Each of these pages can be used within a second, fits a phone, and axe-core finds nothing on it. What is dark
    differs by its colours alone."""
    findings: list[str] = []
    page = visitor.page(paths[0])
    for path in paths:
        took_ms = interactive_ms(page, visitor.url + path, INTERACTIVE_MS)
        assert took_ms < INTERACTIVE_MS, f"{path}: {took_ms:.0f} ms"
        findings += axe_findings(page)
        page.emulate_media(color_scheme="dark")
        findings += axe_findings(page, ["color-contrast"])
        page.set_viewport_size({"width": 390, "height": 844})
        findings += axe_findings(page, ["target-size", "scrollable-region-focusable"])
        wide = page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
        findings += [f"{path} is {wide} px wider than a phone"] if wide > 0 else []
        page.emulate_media(color_scheme="light")
        page.set_viewport_size({"width": 1440, "height": 900})
    page.close()
    assert findings == []


def test_a_withdrawal_halts_it_and_abort_ends_it(operator: Visitor) -> None:
    page = operator.page("/rollouts")
    compose(page, "1.3.0")
    act(page, "Start")
    state(page, "running")
    desk = operator.page("/images")
    desk.get_by_role("link", name="1.3.0").first.click()
    desk.get_by_role("link", name="Withdraw…").click()
    desk.get_by_label(re.compile("^Type ")).fill("1.3.0")
    desk.get_by_label("Reason").fill("it does not boot")
    desk.get_by_role("button", name="Withdraw it").click()
    page.bring_to_front()
    state(page, "halted")
    act(page, "Abort", reason="there is a better one")
    state(page, "aborted")
    expect(page.locator(".actions").first).not_to_contain_text("Resume")
