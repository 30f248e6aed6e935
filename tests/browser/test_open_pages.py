"""Pages that stay open: what is new, tabs that are hidden, streams and services that go away"""

import pytest
from playwright.sync_api import Page, Route, expect
from running import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_failed_candidate_and_one_that_comes_are_seen_without_a_reload(
    page: Page, space: Workspace
) -> None:
    ranking = space.ranking(2)
    page.goto(f"{space.service.url}/rankings/{ranking['id']}")
    first, second = ranking["checkpoint_ids"]
    expect(page.locator("tbody")).to_contain_text("waiting")
    space.fail(space.job_of(ranking, first), "its first layer has 4 channels")
    expect(page.locator("tbody")).to_contain_text("failed")
    space.score(ranking, second, 0.75)
    space.rank(ranking, [(second, 0.75)], [first])
    expect(page.get_by_role("link", name="CSV")).to_be_visible()
    expect(page.locator("tbody tr").first).to_contain_text("0.75")
    page.get_by_role("link", name="candidate 0").first.click()
    expect(page.locator("main")).to_contain_text("its first layer has 4 channels")


def test_a_page_left_open_asks_for_nothing_until_something_changes(page: Page, space: Workspace) -> None:
    ranking = space.ranking(2)
    asked: list[str] = []
    page.goto(f"{space.service.url}/rankings/{ranking['id']}")
    page.wait_for_timeout(2500)
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(3000)
    assert asked == []
    space.score(ranking, ranking["checkpoint_ids"][0], 0.5)
    page.wait_for_timeout(3000)
    assert 1 <= len(asked) <= 2


def test_a_hidden_tab_lets_go_and_catches_up(page: Page, space: Workspace) -> None:
    ranking = space.ranking(2)
    page.goto(f"{space.service.url}/rankings/{ranking['id']}")
    hide = "v => { Object.defineProperty(document, 'hidden', {value: v, configurable: true});" + (
        "document.dispatchEvent(new Event('visibilitychange')) }"
    )
    page.evaluate(hide, True)
    space.http.post(f"/v1/rankings/{ranking['id']}:cancel").raise_for_status()
    page.wait_for_timeout(1500)
    expect(page.locator("#head")).not_to_contain_text("cancelled")
    page.evaluate(hide, False)
    expect(page.locator("#head")).to_contain_text("cancelled")


def test_a_stream_that_something_else_answers_is_opened_again(page: Page, space: Workspace) -> None:
    """As behind a proxy while the service restarts: a browser itself gives up after such an answer."""
    ranking = space.ranking(2)
    refused: list[str] = []

    def proxied(route: Route) -> None:
        if len(refused) < 2:
            refused.append(route.request.url)
            route.fulfill(status=502, body="bad gateway")
        else:
            route.continue_()

    page.route("**/events", proxied)
    page.goto(f"{space.service.url}/rankings/{ranking['id']}")
    expect(page.locator("#away")).to_be_visible()
    space.fail(space.job_of(ranking, ranking["checkpoint_ids"][0]), "its first layer has 4 channels")
    expect(page.locator("tbody")).to_contain_text("failed", timeout=15_000)
    expect(page.locator("#away")).to_be_hidden()
    assert len(refused) == 2


def test_a_service_that_is_away_is_said_and_comes_back(page: Page, space: Workspace) -> None:
    ranking = space.ranking(2)
    page.goto(f"{space.service.url}/rankings/{ranking['id']}")
    page.context.set_offline(True)
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("alert")).to_contain_text("does not answer")
    page.context.set_offline(False)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#head")).to_contain_text("cancelled")
    expect(page.get_by_role("alert")).to_be_hidden()
