"""The page: every address in every state, by what it shows, what it loads and who may see it"""

import contextlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from page_shape import look
from running import Workspace
from test_searches import begin_round, posted, ranked

from app.db.tables import Checkpoint, Dataset
from app.page import routes
from app.page.render import static_url

# what is under the page is tested with both databases
pytestmark = pytest.mark.parametrize("service", ["sqlite"], indirect=True)

LISTS = [
    "rankings",
    "datasets",
    "checkpoints",
    "verifications",
    "searches",
    "studies",
    "pretrainings",
    "pseudo-labellings",
    "jobs",
    "workers",
]
FORMS = [
    "rankings/new",
    "datasets/new",
    "checkpoints/new",
    "verifications/new",
    "searches/new",
    "studies/new",
    "pretrainings/new",
    "pseudo-labellings/new",
]


@pytest.mark.parametrize("at", LISTS)
def test_a_list_without_anything_says_what_to_do(space: Workspace, at: str) -> None:
    text = look(space, f"/{at}")
    assert "yet" in text or "worker" in text


@pytest.mark.parametrize("at", FORMS)
def test_forms_before_there_is_anything(space: Workspace, at: str) -> None:
    text = look(space, f"/{at}")
    assert "<form" in text or 'href="/datasets/new"' in text


def test_home_leads_through_the_first_steps(space: Workspace) -> None:
    text = look(space, "/")
    assert text.index("/datasets/new") < text.index("/checkpoints/new")
    space.dataset(name="wheat heads")
    assert "✓ A dataset is there." in look(space, "/")
    assert "wheat heads" in look(space, "/")


def test_files_are_kept_for_ever_by_their_digest(space: Workspace) -> None:
    for name in ("page.css", "page.js", "upload.js", "pictures.js", "review.js", "icon.svg"):
        answer = space.http.get(static_url(name))
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert "immutable" not in space.http.get(f"/static/0/{name}").headers["cache-control"]
    assert space.http.get("/static/0/../render.py").status_code == 404
    assert space.http.get("/static/0/page.py").status_code == 404


def test_docs_have_every_operation_and_load_nothing(space: Workspace) -> None:
    text = look(space, "/docs")
    for path, methods in space.http.get("/openapi.json").json()["paths"].items():
        assert path in text
        assert len(methods) <= text.count(path)
    assert space.http.get("/redoc").status_code == 404


def test_a_ranking_that_runs_shows_its_candidates_and_follows_its_stream(space: Workspace) -> None:
    ranking = space.ranking()
    text = look(space, f"/rankings/{ranking['id']}")
    assert f'data-follow="/v1/rankings/{ranking["id"]}/events"' in text
    assert "candidate 0" in text
    assert f"/v1/rankings/{ranking['id']}:cancel" in text
    bare = space.http.get(f"/rankings/{ranking['id']}?bare=1").text
    assert "<html" not in bare
    assert "candidate 0" in bare


def test_a_ranking_that_is_done(space: Workspace) -> None:
    ranking = space.ranking(3)
    first, second, third = ranking["checkpoint_ids"]
    space.score(ranking, first, 0.5)
    space.score(ranking, second, 0.75, ms_per_image=40.0)
    space.score(ranking, third, None)
    space.rank(ranking, [(second, 0.75), (first, 0.5)], left_out=[third])
    text = look(space, f"/rankings/{ranking['id']}")
    assert "data-follow" not in text
    assert text.index("candidate 1") < text.index("candidate 0")
    assert "0.75 <span" in text
    assert "± 0.20" in text
    assert "Left out, and why" in text
    assert f"/v1/rankings/{ranking['id']}.csv" in text
    table = text[text.index("<thead>") : text.index("</thead>")]
    assert table.count("<th ") <= 7
    assert '<path class="frontier"' in text
    file = space.http.get(f"/rankings/{ranking['id']}.html")
    assert file.headers["content-disposition"].startswith("attachment")
    assert "<script" not in file.text
    assert "<style>:root" in file.text
    assert '<path class="frontier"' in file.text
    of_one = look(space, f"/rankings/{ranking['id']}/candidates/{second}")
    assert "backbone.c4 (local)" in of_one
    assert "logme" in of_one
    look(space, f"/rankings/{ranking['id']}/candidates/ckpt_{'0' * 32}", 404)
    newer = space.ranking(1, dataset_id=ranking["dataset_id"])
    for at in ("/rankings/latest", f"/rankings/latest?dataset={ranking['dataset_id']}"):  # one that is done
        assert space.http.get(at).headers["location"] == f"/rankings/{ranking['id']}"
    other = space.dataset()
    assert space.http.get(f"/rankings/latest?dataset={other}").headers["location"] == f"/datasets/{other}"
    assert newer["id"] != ranking["id"]


def test_every_metric_at_every_layer_on_demand(space: Workspace) -> None:
    ranking = space.ranking(3)
    first, second, third = ranking["checkpoint_ids"]
    assert "No candidate has a score yet" in look(space, f"/rankings/{ranking['id']}/scores")
    space.score(ranking, first, 0.5)
    space.score(ranking, second, 0.75)
    space.score(ranking, third, None)
    space.rank(ranking, [(first, 0.5), (second, 0.25)], left_out=[third])
    text = look(space, f"/rankings/{ranking['id']}/scores")
    assert 'value="logme@backbone.c4@local" selected' in text
    order = [text.index(f"/candidates/{id}") for id in (second, first, third)]
    assert order == sorted(order)
    assert "undefined: only one category" in text
    assert "selected" in look(space, f"/rankings/{ranking['id']}/scores?by=nothing")


def test_a_fault_of_ours_is_a_page_that_says_what_to_do(
    space: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(routes, "names", broken)
    text = look(space, "/rankings", 500)
    assert "Load again" in text
    assert "ZeroDivisionError" not in text


def test_lists_are_narrowed_by_state_and_jobs_are_steered_from_theirs(space: Workspace) -> None:
    ranking = space.ranking(2)
    first, second = ranking["checkpoint_ids"]
    space.fail(space.job_of(ranking, first), "its first layer has 4 channels")
    text = look(space, "/jobs")
    assert f'data-act="/v1/jobs/{space.job_of(ranking, first)}:retry"' in text
    assert f'data-act="/v1/jobs/{space.job_of(ranking, second)}:cancel"' in text
    failed = look(space, "/jobs?state=failed")
    assert space.job_of(ranking, first) in failed
    assert space.job_of(ranking, second) not in failed
    assert "None is cancelled" in look(space, "/jobs?state=cancelled")
    assert "What to do" in look(space, f"/jobs/{space.job_of(ranking, first)}")
    look(space, "/jobs?state=nonsense", 422)


def test_a_failed_candidate_says_why_and_a_cancelled_ranking_can_be_tried_again(space: Workspace) -> None:
    ranking = space.ranking()
    space.http.post(f"/v1/rankings/{ranking['id']}:cancel").raise_for_status()
    text = look(space, f"/rankings/{ranking['id']}")
    assert "cancelled" in text
    assert f"/v1/rankings/{ranking['id']}:retry" in text
    job = look(space, f"/jobs/{ranking['job_id']}")
    assert f'href="/rankings/{ranking["id"]}"' in job


def test_fifty_candidates_are_a_small_page_soon(space: Workspace) -> None:
    ranking = space.ranking(50)
    answer = space.http.get(f"/rankings/{ranking['id']}")
    assert len(answer.content) < 100_000
    assert answer.elapsed.total_seconds() < 1.0  # the benchmark measures; this finds what is slow by far


def test_a_search_says_what_each_part_was_expected_to_add(space: Workspace) -> None:
    made = ranked(space, posted(space, strategy="expected_improvement"))
    begin_round(space, made, expected_improvement=0.0123)
    shown = look(space, f"/searches/{made['id']}")
    assert "was expected to add" in shown
    assert "· by expected improvement" in shown
    assert "+0.0123" in shown
    assert 'value="expected_improvement"' in look(space, "/searches/new")


def test_work_of_every_kind_has_a_page(space: Workspace) -> None:
    body = {"dataset_id": space.dataset(), "checkpoint_id": space.checkpoint()}
    made = space.http.post("/v1/verifications", json=body).raise_for_status().json()
    assert "Curves come" in look(space, f"/verifications/{made['id']}")
    several = {
        "dataset_id": body["dataset_id"],
        "checkpoint_ids": [body["checkpoint_id"], space.checkpoint()],
    }
    made = space.http.post("/v1/searches", json=several | {"budget_minutes": 30}).raise_for_status().json()
    assert "Where the budget went" in look(space, f"/searches/{made['id']}")
    several["dataset_ids"] = [several.pop("dataset_id")]
    made = space.http.post("/v1/studies", json=several).raise_for_status().json()
    assert "Trainings" in look(space, f"/studies/{made['id']}")
    with space.service.database.unit_of_work() as session:
        bare = session.get(Dataset, body["dataset_id"])
        bare.supervision = "none"
        bare.summary = {"splits": {"train": {"images": 10, "annotations": 0}}, "categories": []}
        session.get(Checkpoint, body["checkpoint_id"]).manifest = {"class_names": ["head"]}
    taught = {"dataset_id": body["dataset_id"], "teacher": "detector"}
    taught |= {"detector_checkpoint": body["checkpoint_id"]}
    made = space.http.post("/v1/pseudo-labellings", json=taught).raise_for_status().json()
    assert "Boxes that a teacher says" in look(space, f"/pseudo-labellings/{made['id']}")
    for kind in ("verifications", "searches", "studies", "pseudo-labellings", "jobs"):
        assert "<tbody>" in look(space, f"/{kind}")


@pytest.mark.parametrize(
    "kind",
    [
        "rankings",
        "datasets",
        "checkpoints",
        "verifications",
        "searches",
        "studies",
        "pretrainings",
        "pseudo-labellings",
        "jobs",
    ],
)
def test_what_is_deleted_or_mistyped_says_so(space: Workspace, kind: str) -> None:
    text = look(space, f"/{kind}/nothing", 404)
    assert "deleted" in text


def test_a_wrong_address_is_a_page_to_eyes_and_a_problem_to_programs(space: Workspace) -> None:
    assert "/nowhere is not an address" in look(space, "/nowhere", 404)
    assert space.http.get("/nowhere").headers["content-type"] == "application/problem+json"
    eyes = {"Accept": "text/html"}
    assert space.http.get("/v1/nowhere", headers=eyes).headers["content-type"] == "application/problem+json"


# ---- keys


def test_without_a_key_one_is_asked_for(space: Workspace) -> None:
    answer = httpx.get(f"{space.service.url}/rankings", headers={"Accept": "text/html"})
    assert answer.status_code == 401
    assert 'type="password"' in answer.text
    assert 'data-go="/rankings"' in answer.text


@contextlib.contextmanager
def signed_in(space: Workspace) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=space.service.url, headers={"Sec-Fetch-Site": "same-origin"}) as browser:
        answer = browser.post("/sign-in", json={"key": space.key})
        assert answer.status_code == 204
        kept = answer.headers["set-cookie"]
        assert "HttpOnly" in kept
        assert "SameSite=lax" in kept
        yield browser


def test_a_key_is_kept_out_of_reach_of_scripts_and_forgotten(space: Workspace) -> None:
    with signed_in(space) as browser:
        assert browser.get("/rankings").status_code == 200
        assert browser.get("/v1/rankings").status_code == 200
        assert browser.post("/sign-out").status_code == 204
        assert browser.get("/rankings").status_code == 401


def test_a_key_that_is_not_known_is_not_kept(space: Workspace) -> None:
    for key in ("detrank_nothing", space.key[:-1] + ("0" if space.key[-1] != "0" else "1")):
        answer = httpx.post(
            f"{space.service.url}/sign-in", json={"key": key}, headers={"Sec-Fetch-Site": "same-origin"}
        )
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
        assert key not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
        {},
    ],
)
def test_pages_of_others_change_nothing_with_our_cookie(space: Workspace, headers: dict[str, str]) -> None:
    ranking = space.ranking()
    with signed_in(space) as browser:
        cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    forged = headers | {"Cookie": cookie}
    url = f"{space.service.url}/v1/rankings/{ranking['id']}"
    assert httpx.post(f"{url}:cancel", headers=forged).status_code == 401
    assert httpx.delete(url, headers=forged).status_code == 401
    assert space.http.get(f"/v1/rankings/{ranking['id']}").json()["state"] == "queued"
    assert (
        httpx.post(f"{space.service.url}/sign-in", json={"key": space.key}, headers=headers).status_code
        == 403
    )
    own = {"Cookie": cookie, "Origin": space.service.url}
    assert httpx.post(f"{url}:cancel", headers=own).status_code in (200, 202)
