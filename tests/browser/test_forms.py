"""Forms: what is refused, what is foretold, what they begin"""

import re

import filled
import filled_work
import pytest
from playwright.sync_api import Page, expect
from running import Workspace
from sqlalchemy import select

from app.db.tables import Checkpoint, Dataset, Pretraining

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_form_that_is_refused_says_it_beside_the_field(page: Page, space: Workspace) -> None:
    filled.dataset(space)
    filled.checkpoint(space, "alone")
    page.goto(f"{space.service.url}/rankings/new")
    page.locator(".pick").first.click()
    page.get_by_label("Pictures at most").fill("0")
    page.get_by_role("button", name="Rank them").click()
    field = page.get_by_label("Pictures at most")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_focused()
    expect(page.locator("#fault-max_images")).to_contain_text("greater than or equal to 1")
    field.fill("10")
    page.get_by_role("button", name="Rank them").click()
    page.wait_for_url(re.compile("/rankings/rk_"))


def test_forms_of_studies_and_pretrainings_say_what_comes_and_begin_it(page: Page, space: Workspace) -> None:
    filled.dataset(space, "first of the study")
    for n in range(3):
        filled.checkpoint(space, f"studied {n}")
    page.goto(f"{space.service.url}/studies/new")
    page.locator("#sets .pick", has_text="first of the study").first.click()
    for n in range(3):
        page.locator("#picks .pick", has_text=f"studied {n}").first.click()
    page.get_by_label("Seeds of fine-tuning").fill("0, 1")
    expect(page.get_by_text("3 scorings and 6 trainings")).to_be_visible()
    page.get_by_label("Seeds of fine-tuning").fill("0, x")
    page.get_by_role("button", name="Begin the study").click()
    expect(page.locator("#fault-seeds")).to_be_visible()
    page.get_by_label("Seeds of fine-tuning").fill("0, 1")
    page.get_by_role("button", name="Begin the study").click()
    page.wait_for_url(re.compile("/studies/st_"))
    id = page.url.rsplit("/", 1)[-1]
    assert space.http.get(f"/v1/studies/{id}").json()["seeds"] == [0, 1]

    page.goto(f"{space.service.url}/pretrainings/new")
    page.get_by_label("Or a fresh one").select_option("deformable_detr")
    page.get_by_label("The frozen network").select_option(label="studied 0")
    expect(page.get_by_text("6 fine-tunings come on top")).to_be_visible()
    page.get_by_label("Fine-tune from the pretrained weights").uncheck()
    page.get_by_label("Iterations", exact=True).fill("5")
    page.get_by_role("button", name="Pretrain", exact=True).click()
    page.wait_for_url(re.compile("/pretrainings/pt_"))
    id = page.url.rsplit("/", 1)[-1]
    assert space.http.get(f"/v1/pretrainings/{id}").json()["request"]["compare"] is None


def test_a_self_training_shows_what_it_needs_and_begins_with_it(page: Page, space: Workspace) -> None:
    pictures, target = filled.dataset(space, "many bare ones"), filled.dataset(space, "few with labels")
    with space.service.database.unit_of_work() as session:
        session.get(Dataset, pictures).supervision = "none"
    filled.checkpoint(space, "a tuned one")
    other = filled.checkpoint(space, "another to compare")
    page.goto(f"{space.service.url}/pretrainings/new?dataset={pictures}")
    expect(page.get_by_label("Or a fresh one")).to_be_visible()
    page.get_by_label("How", exact=True).select_option("self_training")
    expect(page.get_by_label("Or a fresh one")).to_be_hidden()
    page.get_by_label("Dataset with labels").select_option(label="few with labels")
    page.get_by_label("The teacher").select_option(label="a tuned one")
    page.get_by_label("Rounds").fill("2")
    page.get_by_text("Others to compare with").first.click()
    page.locator("#compared .pick", has_text="another to compare").click()
    expect(page.get_by_text("9 fine-tunings come on top")).to_be_visible()
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Decay of averaged weights").fill("0.99")
    page.get_by_role("button", name="Pretrain", exact=True).click()
    page.wait_for_url(re.compile("/pretrainings/pt_"))
    asked = space.http.get(f"/v1/pretrainings/{page.url.rsplit('/', 1)[-1]}").json()["request"]
    assert (asked["method"], asked["labelled_dataset_id"], asked["rounds"]) == ("self_training", target, 2)
    assert (asked["terms"]["ema"], asked["compare"]["checkpoint_ids"]) == (0.99, [other])


def test_a_pseudo_labelling_begins_with_what_its_teacher_needs(page: Page, space: Workspace) -> None:
    bare = filled.dataset(space, "bare")
    with space.service.database.unit_of_work() as session:
        session.get(Dataset, bare).supervision = "none"
    filled.checkpoint(space, "teacher")
    page.goto(f"{space.service.url}/datasets/{bare}")
    page.get_by_role("link", name="Have boxes said").click()
    page.get_by_label("The detector", exact=True).select_option(label="teacher")
    page.get_by_label("Score that a box needs").fill("0.4")
    page.get_by_role("button", name="Have it say boxes").click()
    page.wait_for_url(re.compile("/pseudo-labellings/pl_"))
    id = page.url.rsplit("/", 1)[-1]
    assert space.http.get(f"/v1/pseudo-labellings/{id}").json()["request"]["confidence"] == 0.4


def test_a_detr_that_learns_from_image_labels_begins_with_all_of_its_fields(
    page: Page, space: Workspace
) -> None:
    labelled = filled.dataset(space, "image labels alone")
    with space.service.database.unit_of_work() as session:
        session.get(Dataset, labelled).supervision = "image_labels"
    body = filled.checkpoint(space, "body of the detr")
    page.goto(f"{space.service.url}/pseudo-labellings/new?dataset={labelled}")
    page.get_by_label("The body that reads").select_option(label="body of the detr")
    page.get_by_label("What learns").select_option("detr")
    page.get_by_label("Where objects may be").fill("objectness, selective_search")
    page.get_by_label("Epochs over the pictures").fill("7")
    page.get_by_text("Of the DETR", exact=True).click()
    page.get_by_label("Architecture").select_option("detr")
    page.get_by_label("Pictures of a step").fill("2")
    page.get_by_role("button", name="Have it say boxes").click()
    page.wait_for_url(re.compile("/pseudo-labellings/pl_"))
    asked = space.http.get(f"/v1/pseudo-labellings/{page.url.rsplit('/', 1)[-1]}").json()["request"]
    told = {name: asked[name] for name in ("teacher", "form", "architecture", "epochs", "batch_size")}
    assert told == {
        "teacher": "image_labels",
        "form": "detr",
        "architecture": "detr",
        "epochs": 7,
        "batch_size": 2,
    }
    assert (asked["proposals"], asked["checkpoint_id"]) == (["objectness", "selective_search"], body)


def test_what_a_pretraining_takes_is_told_by_one_that_is_done(page: Page, space: Workspace) -> None:
    dataset = filled.dataset(space, "pictures to pretrain on")
    made = filled_work.pretraining(space, dataset, filled.checkpoint(space, "a body"))
    trained = filled.checkpoint(space, "a pretrained one")
    with space.service.database.unit_of_work() as session:
        session.get(Checkpoint, trained).architecture = "detrank/deformable_detr"
        row = session.get(Pretraining, made)
        row.state, row.seconds, row.trained_checkpoint_id = "succeeded", 120.0, trained
        row.plan = {"training": {"iterations": 60, "batch_size": 4, "image_size": 320}}
        cost = {"proposing_s": 68.0, "training_s": 120.0, "comparing_s": 0.0}
        row.result = row.result | {"cost": cost, "pictures": 272}
        row.version += 1
    page.goto(f"{space.service.url}/pretrainings/new?dataset={dataset}")
    told = page.locator("[data-pretrains]")
    # half a second for a picture of the training, a quarter for its regions: 50 epochs of 272 pictures are 6,800 s
    page.get_by_label("Or a fresh one").select_option("deformable_detr")
    expect(told).to_contain_text(
        "About 1.9 hours of training, then 68 s for its regions, then 6 fine-tunings"
    )
    page.get_by_label("Iterations", exact=True).fill("60")
    expect(told).to_contain_text("About 4 minutes of training")  # in batches of 8
    page.get_by_label("Shorter side in pixels", exact=True).fill("160")
    expect(told).to_contain_text("About 60 s of training")
    page.get_by_label("Fine-tune from the pretrained weights").uncheck()
    expect(told).not_to_contain_text("fine-tunings")
    page.get_by_label("Or a fresh one").select_option("detr")
    expect(told).to_contain_text("Not known")


def test_words_are_written_a_class_on_a_line(page: Page, space: Workspace) -> None:
    bare = filled.dataset(space, "bare")
    filled.checkpoint(space, "asked")
    with space.service.database.unit_of_work() as session:
        session.get(Dataset, bare).supervision = "none"
        session.get(Dataset, bare).summary = session.get(Dataset, bare).summary | {"categories": []}
        row = session.scalars(select(Checkpoint).where(Checkpoint.name == "asked")).one()
        row.kind, row.architecture = "open_vocabulary", "transformers/grounding_dino"
        asked = row.id
    page.goto(f"{space.service.url}/checkpoints/{asked}")
    page.get_by_role("link", name="Have it say boxes from words").click()
    page.get_by_label("Words", exact=True).fill("cat = a cat; a kitten\n\ndog")
    page.get_by_label("Score that an answer needs").fill("0.2")
    page.get_by_role("button", name="Have it say boxes").click()
    page.wait_for_url(re.compile("/pseudo-labellings/pl_"))
    asked_for = space.http.get(f"/v1/pseudo-labellings/{page.url.rsplit('/', 1)[-1]}").json()["request"]
    assert asked_for["words"] == {"cat": ["a cat", "a kitten"], "dog": []}
    assert (asked_for["confidence"], asked_for["all_classes"]) == (0.2, False)
