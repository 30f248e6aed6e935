"""A search from the request to the registered checkpoint, with real, tiny trainings."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from handler_bench import Bench
from small_service import CHECKPOINTS, DATASET, copied, work_all

from app.db.tables import Blob, Checkpoint, Job, Search, Verification
from app.schemas.searches import SearchCreate, SearchView
from app.services import search_views, searches, works
from tests.documents import misfits
from worker.handlers.search import search
from worker.ranking import halving


@pytest.fixture(scope="module")
def bench(small_service: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = copied(small_service, tmp_path_factory.mktemp("search") / "copy")
    yield bench
    bench.database.dispose()


@pytest.fixture(scope="module")
def found(bench: Bench) -> SearchView:
    """Three candidates by two rounds, whatever the speed of this machine."""
    asked = SearchCreate(
        dataset_id=DATASET,
        checkpoint_ids=CHECKPOINTS,
        budget_minutes=60,
        iterations=12,
        image_size=64,
        batch_size=2,
        score_image_size=64,
        metrics=["logme"],
        min_iterations=4,
        precision="float32",
        evaluations=1,
        name="tiny",
    )
    with bench.database.unit_of_work() as session:
        id = searches.create(session, "ws_1", asked, bench.settings).id
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(halving, "AMPLE", 1e9)  # or all would be trained in one go
        patch.setattr(
            search, "PATIENCE", 100.0
        )  # or the clock would cut parts short where the machine has other work
        jobs = work_all(bench)
    assert {job.state for job in jobs} == {"succeeded", "waiting"}, [job.error for job in jobs]
    assert {bench.get(Job, job.id).state for job in jobs} == {"succeeded"}
    assert [job.kind for job in jobs].count("rank") == 1
    with bench.database.reading() as session:
        return search_views.view(session, session.get(Search, id))


def test_it_ends_with_a_fine_tuned_checkpoint_looked_at_on_test_once(bench: Bench, found: SearchView) -> None:
    best = found.best
    assert (found.state, best.whole, best.iterations) == ("succeeded", True, 12)
    trained = bench.get(Checkpoint, best.trained_checkpoint_id)
    assert (trained.state, trained.manifest["class_names"]) == ("ready", ["red", "blue"])
    assert trained.provenance["verification_id"] == best.verification_id
    assert trained.provenance["iterations"] == 12
    for part in {part.verification_id for one in found.rounds for part in one.parts}:
        row = bench.get(Verification, part)
        winner = row.id == best.verification_id
        if "timing" in row.stop_at:
            assert (row.state_sha256, row.result["test"]) == (None, None)
            continue
        assert (row.result["test"] is not None) == winner, "nobody but the winner is looked at on test"
        assert (row.trained_checkpoint_id is not None) == winner
        assert (row.state_sha256 is None) == winner, "the others could go on"
    assert best.test_map == bench.get(Verification, best.verification_id).result["test"]["box"]["map"]
    assert found.map == best.test_map


def test_rounds_go_on_from_where_they_stood_and_cost_what_they_cost(bench: Bench, found: SearchView) -> None:
    assert [one.kind for one in found.rounds] == ["timing", "round", "round", "final"]
    assert [len(one.parts) for one in found.rounds] == [1, 3, 3, 1]
    assert found.ladder == [4, 12]
    assert found.rounds[-1].parts[0].checkpoint_id == found.best.checkpoint_id
    at: dict[str, int] = {}
    for one in found.rounds:
        for part in one.parts:
            assert part.begin == at.get(part.verification_id, 0)
            assert part.iterations == max(part.begin, part.stop)
            assert part.seconds > 0
            assert (part.map is None) == (one.kind == "timing")
            at[part.verification_id] = part.iterations
            curves = [point["iteration"] for point in bench.get(Verification, part.verification_id).curves]
            assert curves == sorted(set(curves))
        assert one.seconds == pytest.approx(sum(part.seconds for part in one.parts))
    spent = found.spent
    assert spent.training_s == pytest.approx(sum(one.seconds for one in found.rounds), abs=0.01)
    assert spent.total_s == pytest.approx(spent.ranking_s + spent.training_s, abs=0.01)
    assert 0 < spent.ranking_s < spent.total_s < spent.budget_s
    assert found.brute_force.candidates == 3
    assert found.brute_force.seconds > 0


def test_it_says_how_sure_it_is_and_draws_its_course(bench: Bench, found: SearchView) -> None:
    assert found.sure.val_images == 3
    assert found.sure.runner_up in CHECKPOINTS
    assert "validation images" in found.sure.text
    assert f"mAP {found.best.test_map:.3f} on test" in found.summary
    assert bench.get(Blob, bench.get(Search, found.id).plot_sha256).media_type == "image/png"
    assert search_views.as_csv(found).count("\r\n") == 1 + sum(len(one.parts) for one in found.rounds)
    assert bench.left_behind() == []


def test_it_is_deleted_with_its_parts_and_the_fine_tuned_checkpoint_stays(
    bench: Bench, found: SearchView
) -> None:
    with bench.database.unit_of_work() as session:
        works.remove(session, "ws_1", Search, found.id)
    assert bench.get(Search, found.id) is None
    assert bench.get(Verification, found.best.verification_id) is None
    assert bench.get(Checkpoint, found.best.trained_checkpoint_id).state == "ready"


def test_what_it_keeps_is_as_its_documents_say(bench: Bench, found: SearchView) -> None:
    with bench.database.reading() as session:
        assert misfits(session) == []
