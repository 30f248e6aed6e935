"""Keys: asked for, made, shown once, closed, expired"""

from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect
from running import running, workspace

from app.db.access_tables import Scope
from app.services import workspaces
from app.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_key_is_asked_for_and_an_expired_one_again(page: Page, tmp_path: Path) -> None:
    with (
        running(Settings(data_dir=tmp_path, auth="keys", min_free_disk_bytes=0)) as service,
        workspace(service, "mine") as mine,
    ):
        ranking = mine.ranking(2)
        at = f"{service.url}/rankings/{ranking['id']}"
        page.goto(at)
        page.get_by_label("Your key").fill("detrank_wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert").filter(has_text="whole detrank key")).to_be_visible()
        page.get_by_label("Your key").fill(mine.key)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#head")).to_contain_text("cancelled")
        assert page.evaluate("document.cookie") == ""
        with service.database.unit_of_work() as session:
            workspaces.revoke_key(session, workspaces.list_keys(session, mine.id)[0].id)
        page.reload()
        expect(page.get_by_label("Your key")).to_be_visible()
        expect(page.locator("main")).to_contain_text("revoked")


def test_keys_are_made_shown_once_and_closed(page: Page, tmp_path: Path) -> None:
    with (
        running(Settings(data_dir=tmp_path, auth="keys", min_free_disk_bytes=0)) as service,
        workspace(service, "mine") as mine,
    ):
        with service.database.unit_of_work() as session:
            _, key = workspaces.create_key(session, mine.id, "who runs it", scope=Scope.ADMIN)
        page.goto(f"{service.url}/keys")
        page.get_by_label("Your key").fill(mine.key)
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("main")).to_contain_text("admin")  # this key may not, and the page says what may
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url("**/sign-in")
        page.goto(f"{service.url}/keys")
        page.get_by_label("Your key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_label("Whose it is").fill("the build server")
        page.get_by_label("May", exact=True).select_option("read")
        page.get_by_role("button", name="Make it").click()
        shown = page.locator("[data-made]")
        expect(shown).to_contain_text("detrank_")
        headers = {"Authorization": f"Bearer {shown.inner_text()}"}
        assert httpx.get(f"{service.url}/v1/rankings", headers=headers).status_code == 200
        assert httpx.post(f"{service.url}/v1/rankings", json={}, headers=headers).status_code == 403
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Revoke the key of the build server").click()
        expect(page.locator("tr.out")).to_contain_text("the build server")
        assert httpx.get(f"{service.url}/v1/rankings", headers=headers).status_code == 401
