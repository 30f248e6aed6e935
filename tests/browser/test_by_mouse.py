"""What people do, with mouse and keyboard: uploads that break, forms that are refused, pages that stay open"""

import os
import re
import zipfile
from pathlib import Path

import filled
import numpy as np
import PIL.Image
import pytest
from playwright.sync_api import Page, Route, expect
from running import Workspace

from tests.deployments import deployment
from tests.squares import squares

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


PAINTED = """new Promise((done) => new PerformanceObserver((list) => {
  const found = list.getEntriesByName("first-contentful-paint");
  if (found.length) done(found[0].startTime);
}).observe({ type: "paint", buffered: true }))"""


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    return target


def random_zip(path: Path, mebibytes: int) -> Path:
    """An archive of several pieces."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("noise.bin", np.random.default_rng(0).bytes(mebibytes << 20))
    return path


def test_a_whole_ranking_from_upload_to_export(page: Page, shared_data: Path, tmp_path: Path) -> None:
    """With a real worker, real weights and nothing but the page."""
    squares(tmp_path / "set")
    archive = zipped(tmp_path / "set", tmp_path / "squares.zip")
    names = ["mobilenet_v2_imagenet_b", "mobilenet_v2_skin"]
    files = [next((shared_data / "weights" / name).glob("*.safetensors")) for name in names]
    patience = 240_000
    with deployment(tmp_path / "home") as service:
        assert service.client is not None
        page.goto(service.client.url)
        page.get_by_role("link", name="Add a dataset").first.click()
        page.get_by_label("Drop the archive here").set_input_files(archive)
        expect(page.get_by_label("Name", exact=True)).to_have_value("squares")
        page.get_by_role("button", name="Send").click()
        page.wait_for_url(re.compile("/datasets/ds_"))
        expect(page.get_by_role("link", name="Rank candidates on it")).to_be_visible(timeout=patience)
        expect(page.locator(".pictures img").first).to_be_visible()
        for name, file in zip(names, files, strict=True):
            page.goto(f"{service.client.url}/checkpoints/new")
            page.get_by_label("Drop the file here").set_input_files(file)
            page.get_by_label("Name", exact=True).first.fill(name)
            page.get_by_role("button", name="Send").click()
            page.wait_for_url(re.compile("/checkpoints/ckpt_"))
            expect(page.get_by_role("link", name="Rank it with others")).to_be_visible(timeout=patience)
        page.get_by_role("link", name="Rank it with others").click()
        page.get_by_role("button", name="All or none").click()
        page.get_by_label("Pictures at most").fill("12")
        page.get_by_text("More", exact=True).click()
        page.locator("#f-image_size").fill("128")
        page.get_by_role("button", name="Rank them").click()
        page.wait_for_url(re.compile("/rankings/rk_"))
        expect(page.get_by_role("link", name="CSV")).to_be_visible(timeout=patience)
        expect(page.locator("tbody tr")).to_have_count(2)
        expect(page.locator("path.frontier")).to_have_count(1)
        if kept := os.environ.get("DETRANK_TEST_SCREENSHOTS"):
            page.screenshot(path=Path(kept) / "real-ranking.png", full_page=True)
        with page.expect_download() as csv:
            page.get_by_role("link", name="CSV").click()
        text = csv.value.path().read_text()
        assert all(name in text for name in names)
        with page.expect_download() as png:
            page.locator("#head").get_by_role("link", name="PNG").click()
        assert PIL.Image.open(png.value.path()).width > 100


def test_a_broken_archive_says_why_before_anything_is_made(
    page: Page, space: Workspace, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"this is no archive" * 100)
    page.goto(f"{space.service.url}/datasets/new")
    page.get_by_label("Drop the archive here").set_input_files(broken)
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("alert").filter(has_text="zip")).to_be_visible()
    assert page.url.endswith("/datasets/new")


def test_an_upload_goes_on_after_lost_connections_and_a_reload(
    page: Page, space: Workspace, tmp_path: Path
) -> None:
    archive = random_zip(tmp_path / "large.zip", 20)
    page.goto(f"{space.service.url}/datasets/new")
    sent: list[int] = []

    def third_is_lost(route: Route) -> None:
        sent.append(int(route.request.headers["upload-offset"]))
        if len(sent) == 2:
            route.abort()
        else:
            route.continue_()

    page.route(
        "**/v1/uploads/up_*", lambda r: third_is_lost(r) if r.request.method == "PATCH" else r.continue_()
    )
    page.get_by_label("Drop the archive here").set_input_files(archive)
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("status").filter(has_text="connection was lost")).to_be_visible()
    page.reload()
    expect(page.get_by_text("of large.zip have arrived before")).to_be_visible()
    page.get_by_label("Drop the archive here").set_input_files(archive)
    page.get_by_role("button", name="Send").click()
    page.wait_for_url(re.compile("/datasets/ds_"))
    assert sent.count(0) == 1  # what had arrived was not sent again
    assert sent[-1] == 16 << 20


# a picker that gives the same file each time, from the browser's own file system, whose handles are those of any file
PICKER = """window.showOpenFilePicker = async () => {
  const handle = await (await navigator.storage.getDirectory()).getFileHandle("large.zip", {create: true});
  if ((await handle.getFile()).size === 0) {
    const writing = await handle.createWritable();
    await writing.write(await (await fetch("/the-archive")).blob());
    await writing.close();
  }
  return [handle];
};"""


def test_an_upload_goes_on_after_a_reload_by_one_click_where_files_can_be_remembered(
    page: Page, space: Workspace, tmp_path: Path
) -> None:
    archive, sent = random_zip(tmp_path / "large.zip", 20), []
    page.add_init_script(PICKER)
    page.route("**/the-archive", lambda route: route.fulfill(path=archive))

    def second_is_lost(route: Route) -> None:
        if route.request.method == "PATCH":
            sent.append(int(route.request.headers["upload-offset"]))
        route.abort() if len(sent) == 2 and route.request.method == "PATCH" else route.continue_()

    page.route("**/v1/uploads/up_*", second_is_lost)
    page.goto(f"{space.service.url}/datasets/new")
    page.get_by_label("Drop the archive here").click()
    expect(page.get_by_role("status").filter(has_text="large.zip")).to_be_visible()
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("status").filter(has_text="connection was lost")).to_be_visible()
    page.reload()
    page.get_by_role("button", name="Go on with it").click()
    page.wait_for_url(re.compile("/datasets/ds_"))
    assert sent.count(0) == 1, sent  # what had arrived was not sent again


def test_cancel_and_try_again_by_button(page: Page, space: Workspace) -> None:
    ranking = space.ranking(2)
    page.goto(f"{space.service.url}/rankings/{ranking['id']}")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    page.goto(f"{space.service.url}/jobs?state=cancelled")
    page.get_by_role("button", name="Try this rank job again").first.click()
    expect(page.get_by_role("button", name="Try this rank job again")).to_have_count(0)
    page.goto(f"{space.service.url}/rankings/{ranking['id']}")
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    assert space.http.get(f"/v1/rankings/{ranking['id']}").json()["state"] in ("queued", "running")


def test_a_threshold_of_ones_own_shows_other_boxes(page: Page, space: Workspace) -> None:
    dataset = filled.dataset(space)
    one = filled.verification(space, dataset, done=True, name="one")
    two = filled.verification(space, dataset, done=True, name="two", level=0.3)
    page.goto(f"{space.service.url}/verifications/{one['id']}")
    page.get_by_role("link", name="Every picture").click()
    boxes = page.locator("[data-score]:not([hidden])")
    shown, missed = boxes.count(), page.locator(".missed").count()
    expect(page.locator(".sheet img").first).to_have_js_property("naturalWidth", 400)
    slider = page.get_by_label("score from")
    slider.press("End")
    expect(boxes).to_have_count(0)
    expect(page.get_by_role("status").filter(has_text="0 right, 0 false")).to_be_visible()
    assert page.locator(".missed").count() == 12 * 3 > missed  # each has three objects that count
    slider.press("Home")
    assert boxes.count() == 12 * 7 > shown
    page.get_by_label("Beside it").select_option(two["id"])
    page.get_by_role("button", name="Show").click()
    expect(page.locator("input[type=range]")).to_have_count(2)
    expect(page.get_by_role("heading", name="Two beside each other")).to_be_visible()
    page.get_by_role("link", name="Better ones").click()
    expect(page.locator("input[type=range]")).to_have_count(2)


def test_the_table_sorts_by_mouse_and_by_keyboard(page: Page, space: Workspace) -> None:
    ranking = filled.ranking(space, filled.dataset(space), filled.NAMES[:4])
    page.goto(f"{space.service.url}/rankings/{ranking['id']}")
    page.get_by_role("button", name="ms a picture").click()
    shown = _milliseconds(page)
    assert len(set(shown)) == 4
    assert shown == sorted(shown)
    page.get_by_role("button", name="ms a picture").press("Enter")
    assert _milliseconds(page) == shown[::-1]


def _milliseconds(page: Page) -> list[float]:
    """Of the candidates in the order shown; those on the frontier have a mark behind the number."""
    return [float(text.split()[0]) for text in page.locator("tbody tr td:nth-child(5)").all_inner_texts()]


def test_the_theme_is_kept(page: Page, space: Workspace) -> None:
    page.emulate_media(color_scheme="light")
    page.goto(f"{space.service.url}/datasets")
    page.get_by_role("button", name="Theme").click()
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_fifty_candidates_are_a_small_page_that_is_painted(page: Page, space: Workspace) -> None:
    """How soon, benchmarks/page.py says."""
    names = [f"candidate {n}" for n in range(50)]
    ranking = filled.ranking(space, filled.dataset(space), names)
    page.goto(f"{space.service.url}/rankings/{ranking['id']}")
    assert page.evaluate(PAINTED) > 0
    assert page.locator("tbody tr").count() >= 50
    assert len(space.http.get(f"/rankings/{ranking['id']}").content) < 200_000
