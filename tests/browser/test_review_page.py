"""Pseudo boxes reviewed by keys and by mouse"""

import filled
import filled_work
import pytest
from playwright.sync_api import Page, expect
from running import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_boxes_are_accepted_rejected_and_corrected_and_missed_objects_counted(
    page: Page, space: Workspace
) -> None:
    dataset = filled.dataset(space, "bare")
    id = filled_work.pseudo_labelling(space, dataset, filled.checkpoint(space, "teacher"))
    at = f"/v1/pseudo-labellings/{id}/review"
    page.goto(f"{space.service.url}/pseudo-labellings/{id}")
    page.get_by_role("link", name="Review some boxes").click()
    asked = page.locator("#asked")
    expect(asked).to_contain_text("Box 1 of 6: is this head")
    page.keyboard.press("a")
    expect(asked).to_contain_text("Box 2 of 6")
    page.keyboard.press("r")
    expect(asked).to_contain_text("Box 3 of 6")
    page.get_by_role("button", name="Correct it").click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    page.get_by_label("What it is").select_option("stem")
    page.get_by_role("button", name="Keep").first.click()
    expect(asked).to_contain_text("Box 4 of 6")
    page.keyboard.press("c")
    view = page.locator("#view").bounding_box()
    assert view is not None
    page.mouse.move(view["x"] + view["width"] * 0.45, view["y"] + view["height"] * 0.4)
    page.mouse.down()
    page.mouse.move(view["x"] + view["width"] * 0.6, view["y"] + view["height"] * 0.7)
    page.mouse.up()
    page.keyboard.press("Enter")
    expect(asked).to_contain_text("Box 5 of 6")
    items = space.http.get(at).json()["items"]
    assert [one["decision"] for one in items] == ["accept", "reject", "correct", "correct", None, None]
    moved, drawn = items[2]["corrected"], items[3]["corrected"]
    assert moved == {"bbox": [117.0, 80.0, 90.0, 72.0], "category": "stem"}
    assert drawn["category"] == "head"
    assert 0.9 < drawn["bbox"][3] / (0.3 * 300) < 1.1
    page.keyboard.press("ArrowLeft")
    expect(asked).to_contain_text("You corrected it")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(asked).to_contain_text("Picture 1 of 2")
    page.get_by_label("How many objects have no box here?").fill("2")
    page.keyboard.press("Enter")
    expect(asked).to_contain_text("Picture 2 of 2")
    assert space.http.get(at).json()["pictures"][0]["missed"] == 2
    expect(page.locator("#said")).to_contain_text("precision")
    page.reload()
    expect(asked).to_contain_text("Box 5 of 6")  # where the first without an answer is
    with page.expect_download() as kept:
        page.get_by_role("link", name="COCO", exact=True).click()
    page.locator("#f-coco").set_input_files(kept.value.path())
    expect(page.locator("progress")).to_have_js_property("value", 1)
