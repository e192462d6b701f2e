"""Processor time of the web process while two hundred pages are open and a hundred nodes a second change (cores).

On SQLite web is a part of `twinroot up`, and no clock tells its share from the gateway's. So web and gateway run as
processes of their own, as they do beyond one machine, on a private PostgreSQL server; what is counted is the web
process, all of its threads, in user and kernel. The thousand nodes and the pages are in this process, on real
connections; a page does what static/live.js and htmx do (see bench.browser), without a pause.

Of the pages a tenth is the fleet, three tenths are the list in four views, and the rest are different nodes. Which
node changes is decided by lot among all of them. At the end the changes stop, and every page has to come to show the
last state: otherwise there is no figure.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

from bench.browser import Page
from bench.connected_nodes import Nodes
from bench.console import Console, console, running
from bench.gateway_world import Server, many_files, run_on_fast_loop, world
from tests import postgres  # its private server is what our tests run on too

NODES = 1_000
PAGES = 200
CHANGES_PER_S = 100.0
GOAL_CORES = 0.5
WARM_S, MEASURED_S = 8.0, 40.0
_FLEET_PAGES, _LIST_PAGES = PAGES // 10, PAGES * 3 // 10
_LISTS = ("/nodes", "/nodes?q=health:healthy", "/nodes?q=label:zone%3Da", "/nodes?sort=version")
_SETTLE_S = 20.0


def run() -> list[dict[str, object]]:
    many_files()
    with postgres.private_server() as server:
        postgres.execute(server, "CREATE DATABASE bench")
        with world(NODES, postgres.url(server, "bench")) as built:
            site = console(built)
            with running(site, "gateway") as gateway, running(site, "web") as web:
                cores = run_on_fast_loop(_measure(site, web, gateway))
    assert isinstance(cores, float)
    figure = {"name": "live-pages-cpu", "value": round(cores, 2), "unit": "cores", "goal": f"< {GOAL_CORES:g}"}
    return [{**figure, "met": cores < GOAL_CORES}]


def _pages(site: Console) -> list[Page]:
    nodes = [f"/nodes/{node_id}" for node_id, _ in site.world.keys[: PAGES - _FLEET_PAGES - _LIST_PAGES]]
    lists = [_LISTS[number % len(_LISTS)] for number in range(_LIST_PAGES)]
    return [Page(site, path) for path in ["/"] * _FLEET_PAGES + lists + nodes]


async def _measure(site: Console, web: Server, gateway: Server) -> float:
    nodes, pages = Nodes(site.world, site.gateway.port), _pages(site)
    await nodes.connect()
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(page.run()) for page in pages]
            await asyncio.gather(*(page.opened.wait() for page in pages))
            changing = group.create_task(nodes.keep_changing(range(NODES), CHANGES_PER_S, random.Random(13)))
            await asyncio.sleep(WARM_S)
            cores = await _count(nodes, pages, web, gateway)
            changing.cancel()
            await _settled(pages)
            for task in tasks:
                task.cancel()
    finally:
        await nodes.close()
    return cores


async def _count(nodes: Nodes, pages: list[Page], web: Server, gateway: Server) -> float:
    answers, sent = _answers(pages), nodes.sent
    began, web_s, gateway_s = time.perf_counter(), web.cpu_s(), gateway.cpu_s()
    await asyncio.sleep(MEASURED_S)
    took = time.perf_counter() - began
    cores = (web.cpu_s() - web_s) / took
    answers = _answers(pages) - answers
    print(
        f"  {len(pages)} pages, {(nodes.sent - sent) / took:.0f} changes/s: web answered"
        f" {answers[200] / took:.1f} parts/s anew and {answers[304] / took:.1f}/s with “unchanged”,"
        f" {1000 * cores * took / answers.total():.1f} ms each; gateway:"
        f" {(gateway.cpu_s() - gateway_s) / took:.2f} cores",
        flush=True,
    )
    return cores


def _answers(pages: list[Page]) -> Counter[int]:
    return sum((page.answers for page in pages), Counter())


async def _settled(pages: list[Page]) -> None:
    """Every page shows the last state; TimeoutError when one stays behind."""
    async with asyncio.timeout(_SETTLE_S):
        while any(page.behind for page in pages):
            await asyncio.sleep(0.1)
