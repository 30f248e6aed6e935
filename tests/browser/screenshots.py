"""A picture of every page: wide and narrow, light and dark, four to a sheet.

    PYTHONPATH=.:tests:tests/browser python -m tests.browser.screenshots docs/page [NAME ...]

Sheets are WebP of at most 60 kB, each cut at CUT pixels of its page; to be looked at by eye.
"""

import io
import os
import shutil
import sys
import tempfile
from pathlib import Path

import addresses
import httpx
import PIL.Image
from playwright.sync_api import Browser, sync_playwright
from running import Workspace, running

from app.services.workspaces import DEFAULT_WORKSPACE
from app.settings import Settings

CUT = 1500
MOST_BYTES = 60_000
SHOTS = ((1280, "light"), (1280, "dark"), (390, "light"), (390, "dark"))
SCALE, GAP, GROUND = 0.5, 12, (128, 128, 128)


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    chromium = os.environ.get("DETRANK_TEST_CHROMIUM") or shutil.which("chromium")
    with tempfile.TemporaryDirectory() as home, sync_playwright() as driver:
        settings = Settings(data_dir=Path(home), min_free_disk_bytes=0, log_level="WARNING")
        with running(settings) as service, httpx.Client(base_url=service.url, timeout=60) as http:
            found = addresses.fill(Workspace(service, DEFAULT_WORKSPACE, "", http))
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            for name in sys.argv[2:] or found:
                path = out / f"{name}.webp"
                path.write_bytes(_small(_sheet(browser, service.url + found[name])))
                sys.stdout.write(f"{path}: {path.stat().st_size:,} bytes\n")
            browser.close()


def _sheet(browser: Browser, url: str) -> PIL.Image.Image:
    shots = []
    for width, theme in SHOTS:
        tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)  # type: ignore[arg-type]
        tab.goto(url)
        tab.wait_for_load_state("networkidle") if "/docs" in url else tab.wait_for_timeout(250)
        whole = PIL.Image.open(io.BytesIO(tab.screenshot(full_page=not url.endswith("/docs"))))
        cut = whole.convert("RGB").crop((0, 0, whole.width, min(whole.height, CUT)))
        shots.append(
            cut.resize((round(cut.width * SCALE), round(cut.height * SCALE)), PIL.Image.Resampling.LANCZOS)
        )
        tab.close()
    sheet = PIL.Image.new(
        "RGB", (sum(one.width + GAP for one in shots) - GAP, max(one.height for one in shots)), GROUND
    )
    at = 0
    for one in shots:
        sheet.paste(one, (at, 0))
        at += one.width + GAP
    return sheet


def _small(sheet: PIL.Image.Image) -> bytes:
    for quality in (70, 50, 35, 20, 10):
        kept = io.BytesIO()
        sheet.save(kept, "WEBP", quality=quality, method=6)
        if kept.tell() <= MOST_BYTES:
            break
    return kept.getvalue()


if __name__ == "__main__":
    main()
