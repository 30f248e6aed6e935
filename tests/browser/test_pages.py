"""Every page in a real browser, in both themes and two widths: nothing wide, nothing unreadable, nothing refused"""

import addresses
import pytest
from running import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

WIDTHS = {"wide": 1280, "phone": 390}


# how much of what is seen moves while a page loads: Chromium counts under 0.1 as good
MOVED = """new Promise((done) => {
  let sum = 0;
  new PerformanceObserver((list) => list.getEntries().forEach((one) => (sum += one.value)))
    .observe({ type: "layout-shift", buffered: true });
  setTimeout(() => done(sum), 50);
})"""


@pytest.fixture(scope="module")
def found(space: Workspace) -> dict[str, str]:
    return addresses.fill(space)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_fits_and_can_be_read(
    page, space: Workspace, found: dict[str, str], theme: str, width: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page.set_viewport_size({"width": WIDTHS[width], "height": 900})
    page.emulate_media(color_scheme=theme)
    faults = {}
    for name, at in found.items():
        page.goto(space.service.url + at)
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            faults[name] = "wider than the window"
        if (moved := page.evaluate(MOVED)) > 0.1:
            faults[f"{name} moves"] = f"{moved:.2f}"
        if (width, theme) == ("phone", "dark"):
            continue  # the layout has been looked at in light, the colours in the wide window
        violations = Axe().run(page).response["violations"]
        serious = [
            f"{one['id']}: {one['nodes'][0]['html'][:150]}"
            for one in violations
            if one["impact"] in ("serious", "critical")
        ]
        if serious:
            faults[f"{name} axe"] = serious
    assert faults == {}, "\n".join(f"{name}: {what}" for name, what in faults.items())
