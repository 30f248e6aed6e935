"""A real browser: Chromium of the system, driven by Playwright; skipped with the reason where it is absent."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from running import Running, Workspace, running

from app.services.workspaces import DEFAULT_WORKSPACE
from app.settings import Settings

# of a machine that does other things too
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(
    scope="module"
)  # while it is open an event loop runs here, and tests of others begin their own
def browser() -> Iterator[Browser]:
    path = os.environ.get("DETRANK_TEST_CHROMIUM") or shutil.which("chromium")
    if path is None:
        message = "no chromium on the path (Debian: apt-get install chromium); set DETRANK_TEST_CHROMIUM"
        if os.environ.get("DETRANK_REQUIRE_SERVICES") == "1":
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A tab. What the page itself does wrong, in script or against its policy, fails the test."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    wrong: list[str] = []
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on(
        "console",
        lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None,
    )
    tab.set_default_timeout(PATIENCE_MS)
    yield tab
    tab.close()
    assert wrong == []


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The service without keys and without a worker: tests move the jobs themselves."""
    home: Path = tmp_path_factory.mktemp("browser")
    with running(Settings(data_dir=home, min_free_disk_bytes=0)) as started:
        yield started


@pytest.fixture(scope="session")
def space(service: Running) -> Iterator[Workspace]:
    with httpx.Client(base_url=service.url, timeout=30) as http:
        yield Workspace(service, DEFAULT_WORKSPACE, "", http)
