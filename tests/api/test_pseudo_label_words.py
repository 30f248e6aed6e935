"""POST /v1/pseudo-labellings with the teacher `words`, the same from the command line, and what such a checkpoint is not for."""

import json
from collections.abc import Callable

import pytest
from running import Record, Workspace
from typer.testing import CliRunner

from app.cli.main import build
from app.db.tables import Checkpoint, Dataset
from detrank import Client

GROUNDING, OWL = "transformers/grounding_dino", "transformers/owlv2"


def dataset(space: Workspace, supervision: str = "none", classes: tuple[str, ...] = ()) -> str:
    id = space.dataset()
    with space.service.database.unit_of_work() as session:
        row = session.get_one(Dataset, id)
        row.supervision = supervision
        row.summary = {
            "categories": [{"name": name} for name in classes],
            "splits": {"train": {"images": 6, "annotations": 0}},
        }
    return id


def asked_of(space: Workspace, architecture: str = GROUNDING, longest: int = 256) -> str:
    """An open-vocabulary checkpoint that is ready."""
    id = space.checkpoint(name="asked")
    with space.service.database.unit_of_work() as session:
        row = session.get_one(Checkpoint, id)
        row.kind, row.architecture = "open_vocabulary", architecture
        size = [960, 960] if architecture == OWL else None
        row.manifest = {"layers": [], "input": {"fixed_size": size}, "options": {"longest_text": longest}}
    return id


def post(space: Workspace, **fields: object) -> Record:
    return space.http.post("/v1/pseudo-labellings", json={"teacher": "words"} | fields)


def test_classes_are_asked_for_by_their_names_or_by_prompts(space: Workspace) -> None:
    own, teacher = dataset(space, "image_labels", ("Cat", "wine_glass")), asked_of(space)
    made = post(space, dataset_id=own, words_checkpoint=teacher).json()
    assert made["request"]["words"] == {"Cat": [], "wine_glass": []}
    assert made["request"]["categories"] == ["Cat", "wine_glass"]
    assert (made["teacher"], made["checkpoint_id"]) == ("words", teacher)
    words = {"Cat": ["a cat", "a kitten", "a cat"]}
    fields = {
        "words": words,
        "all_classes": True,
        "text_threshold": 0.3,
        "overlap": 0.6,
        "max_boxes": 7,
        "image_size": 600,
    }
    made = post(space, dataset_id=own, words_checkpoint=teacher, **fields).json()
    assert made["request"]["words"] == {"Cat": ["a cat", "a kitten"]}
    assert made["request"]["categories"] == ["Cat", "wine_glass"]
    assert {name: made["request"][name] for name in list(fields)[1:]} == {
        name: fields[name] for name in list(fields)[1:]
    }
    bare = post(
        space, dataset_id=dataset(space), words_checkpoint=teacher, words={"dog": [], "cat": []}
    ).json()
    assert bare["request"]["categories"] == ["dog", "cat"]


@pytest.mark.parametrize(
    ("fields", "pointer", "says"),
    [
        ({"words_checkpoint": None}, "/words_checkpoint", "needs an open-vocabulary detector"),
        ({"words": {"dog": []}}, "/words/dog", "no category 'dog', it has cat, a/b"),
        ({"words": {"a/b": ["..."]}}, "/words/a~1b/0", "has no word"),
        ({"words": {"cat": ["a cat. a dog"]}}, "/words/cat/0", "period or question mark within"),
        ({"words": {"cat": [""]}}, "/words/cat/0", "at least 1 character"),
        ({"words": {"cat": ["x"], "a/b": ["X."]}}, "/words/a~1b", "a box cannot be of both"),
        ({"words": {}}, "/words", "words is empty"),
        ({"classes": {"cat": "cat"}}, "/classes", "of the teacher detector"),
        ({"epochs": 3}, "/epochs", "of the teacher image_labels"),
        ({"all_classes": True}, "/all_classes", "is about image labels"),
        ({"max_boxes": 0}, "/max_boxes", ""),
    ],
)
def test_what_cannot_be_asked_is_said_at_the_field(
    space: Workspace, fields: Record, pointer: str, says: str
) -> None:
    body = {"dataset_id": dataset(space, "boxes", ("cat", "a/b")), "words_checkpoint": asked_of(space)}
    answer = post(space, **(body | fields))
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"].startswith(pointer)
    assert says in answer.json()["errors"][0]["message"]
    assert space.http.get("/v1/pseudo-labellings").json()["items"] == []


def test_a_family_says_what_it_does_not_take(space: Workspace) -> None:
    body = {"dataset_id": dataset(space), "words_checkpoint": asked_of(space, OWL, longest=16)}
    for fields, pointer, says in (
        ({"image_size": 600}, "/image_size", "960 x 960 alone"),
        ({"text_threshold": 0.2}, "/text_threshold", "leave text_threshold out"),
        ({"words": {"cat": ["very " * 15 + "small cat"]}}, "/words/cat/0", "reads 14 tokens"),
        ({}, "/words", "names no class: say in words"),
    ):
        answer = post(space, **(body | {"words": {"cat": ["a. b"]}} | fields) if fields else body)
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["pointer"] == pointer
        assert says in answer.json()["errors"][0]["message"]
    # no phrase ends at a period of OWL's queries
    assert post(space, **body, words={"cat": ["a. b"]}).status_code == 202


def test_only_an_open_vocabulary_detector_is_asked_for_words(space: Workspace) -> None:
    answer = post(
        space, dataset_id=dataset(space, "boxes", ("cat",)), words_checkpoint=space.checkpoint(name="mine")
    )
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/words_checkpoint")
    assert "no word can be asked of" in answer.json()["detail"]


def test_it_is_no_candidate_and_is_not_trained(space: Workspace) -> None:
    teacher, other, own = asked_of(space), space.checkpoint(name="other"), dataset(space, "boxes", ("cat",))
    for path, body in (
        ("/v1/rankings", {"dataset_id": own, "checkpoint_ids": [other, teacher]}),
        ("/v1/verifications", {"dataset_id": own, "checkpoint_id": teacher}),
        ("/v1/pretrainings", {"dataset_id": own, "from_checkpoint": teacher}),
        ("/v1/pseudo-labellings", {"dataset_id": own, "teacher": "detector", "detector_checkpoint": teacher}),
    ):
        answer = space.http.post(path, json=body)
        assert answer.status_code == 409, (path, answer.text)
        assert "teacher words" in answer.json()["detail"]
    found = space.http.get("/v1/checkpoints", params={"kind": "open_vocabulary"}).json()["items"]
    assert [one["id"] for one in found] == [teacher]


@pytest.fixture
def detrank(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a command in this process; its output, errors after it."""
    monkeypatch.setenv("COLUMNS", "200")
    root = build()

    def run(*words: object, code: int = 0) -> str:
        done = CliRunner().invoke(root, ["--url", space.service.url, "--key", space.key, *map(str, words)])
        assert done.exit_code == code, done.output
        return done.output

    return run


def test_the_command_line_and_the_client_ask_alike(space: Workspace, detrank: Callable[..., str]) -> None:
    own, teacher = dataset(space), asked_of(space)
    words = ["pseudo-label", own, "--teacher", "words", "--open-vocabulary", teacher, "--no-wait", "--json"]
    made = json.loads(detrank(*words, "--prompt", "cat=a cat; a kitten", "--prompt", "dog", "--max-boxes", 5))
    assert made["request"]["words"] == {"cat": ["a cat", "a kitten"], "dog": []}
    assert made["request"]["max_boxes"] == 5
    assert "--prompt cat for its name" in detrank(*words, "--prompt", "=a cat", code=2)
    with Client(space.service.url, space.key) as client:
        again = client.pseudo_labellings.create(
            own, "words", words_checkpoint=teacher, words={"cat": ["a cat"]}
        )
        assert again["request"]["words"] == {"cat": ["a cat"]}


def test_the_page_offers_it_where_it_is_of_use(space: Workspace) -> None:
    teacher = asked_of(space)
    space.checkpoint(name="a candidate")
    dataset(space)
    form = space.http.get("/pseudo-labellings/new", params={"checkpoint": teacher}).text
    assert f'<option value="{teacher}" selected' in form
    assert '<option value="words" selected' in form
    assert teacher not in space.http.get("/rankings/new").text
    own = space.http.get(f"/checkpoints/{teacher}").text
    assert f"/pseudo-labellings/new?checkpoint={teacher}" in own
    assert "Fine-tune it" not in own
