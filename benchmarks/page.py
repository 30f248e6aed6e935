"""How soon a ranking of many candidates is painted, how large pages are, and what a page left open asks for.

    PYTHONPATH=.:tests:tests/browser python benchmarks/page.py [--candidates 50] [--times 9] [--open-s 30]

A service without a worker on SQLite in a temporary folder, Chromium of the system over loopback. Needs the test
dependencies: playwright, and the records that the browser tests make.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import filled
import httpx
from playwright.sync_api import Page, sync_playwright
from running import Workspace, running

from app.services.workspaces import DEFAULT_WORKSPACE
from app.settings import Settings

PAINTED = """new Promise((done) => new PerformanceObserver((list) => {
  const found = list.getEntriesByName("first-contentful-paint");
  if (found.length) done(found[0].startTime);
}).observe({ type: "paint", buffered: true }))"""


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("--candidates", type=int, default=50)
    asked.add_argument("--times", type=int, default=9)
    asked.add_argument("--open-s", type=float, default=30.0)
    options = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        settings = Settings(data_dir=Path(folder), min_free_disk_bytes=0, log_level="WARNING")
        with running(settings) as service, httpx.Client(base_url=service.url, timeout=60) as http:
            space = Workspace(service, DEFAULT_WORKSPACE, "", http)
            names = [f"candidate {n}" for n in range(options.candidates)]
            done = filled.ranking(space, filled.dataset(space), names)
            at = f"/rankings/{done['id']}"
            _server(http, at, options.times)
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            tab = browser.new_page()
            _paint(tab, service.url + at, options.times)
            _left_open(space, tab, options.open_s)
            browser.close()


def _server(http: httpx.Client, at: str, times: int) -> None:
    for name, address in (
        ("page", at),
        ("its fresh part", f"{at}?bare=1"),
        ("list", "/rankings"),
        ("docs", "/docs"),
    ):
        taken = []
        for _ in range(times):
            began = time.perf_counter()
            answer = http.get(address)
            taken.append(1000 * (time.perf_counter() - began))
        print(f"{name:>16}: {statistics.median(taken):6.0f} ms, {len(answer.content):7,} bytes")


def _paint(tab: Page, url: str, times: int) -> None:
    painted = []
    for _ in range(times):
        tab.goto(url)
        painted.append(tab.evaluate(PAINTED))
    print(
        f"first paint: median {statistics.median(painted):.0f} ms, of {times}: {min(painted):.0f} to {max(painted):.0f}"
    )


def _left_open(space: Workspace, tab: Page, seconds: float) -> None:
    """Requests of a page that stays open on a ranking: while nothing happens, then while three scores come."""
    ranking = space.ranking(4)
    tab.goto(f"{space.service.url}/rankings/{ranking['id']}")
    tab.wait_for_timeout(2000)
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.wait_for_timeout(1000 * seconds)
    idle = len(asked)
    for id in ranking["checkpoint_ids"][:3]:
        space.score(ranking, id, 0.5)
        tab.wait_for_timeout(2500)
    print(f"left open: {idle} requests in {seconds:.0f} s of nothing, {len(asked) - idle} for 3 changes")


if __name__ == "__main__":
    main()
