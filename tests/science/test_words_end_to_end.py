"""Words as the teacher, through the real API and a real worker: a folder is sent, pictures are sent, boxes come back."""

from pathlib import Path

import pytest
import torch

from detrank import Client, ProblemError
from tests import open_vocabulary_models as small
from tests.deployments import deployment, zipped
from tests.squares import squares

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PATIENCE_S = 240
PROMPT = "a photo of a red square"


def owl_that_sees(prompt: str, folder: Path) -> Path:
    """An OWLv2 whose every patch looks like the prompt, and says a box a third of the picture wide."""
    made = small.model("owlv2")
    text = small.clip()([prompt], return_tensors="pt")
    with torch.no_grad():
        vector = made.owlv2.get_text_features(**text).pooler_output[0]
        made.class_head.dense0.weight.zero_()
        made.class_head.dense0.bias.copy_(vector)
        made.box_head.dense2.weight.zero_()
        made.box_head.dense2.bias.copy_(torch.tensor([0.0, 0.0, 0.5, 0.5]))
    return small.saved("owlv2", folder, made=made)


def test_pictures_and_words_become_a_dataset(tmp_path: Path) -> None:
    folder = owl_that_sees(PROMPT, tmp_path / "owl")
    with deployment(tmp_path / "home") as running:
        client = running.client
        assert client is not None
        dataset = client.datasets.add(zipped(squares(tmp_path / "set", images=6), tmp_path / "set.zip"))
        teacher = client.checkpoints.add(folder, name="owl")
        dataset = client.datasets.wait(dataset["id"], timeout_s=PATIENCE_S)
        teacher = client.checkpoints.wait(teacher["id"], timeout_s=PATIENCE_S)
        assert (teacher["state"], teacher["kind"]) == ("ready", "open_vocabulary"), teacher["error"]
        made = client.pseudo_labellings.create(
            dataset["id"],
            "words",
            words_checkpoint=teacher["id"],
            words={"red": [PROMPT], "blue": []},
            confidence=0.0,
            overlap=0.3,
        )
        found = client.pseudo_labellings.wait(made["id"], timeout_s=PATIENCE_S)
        assert (found["state"], found["error"]) == ("succeeded", None)
        # every patch answers the first prompt and none the other
        assert found["said"]["prompts"] == {"red": [PROMPT], "blue": ["a photo of a blue"]}
        assert found["warnings"][0] == "no box answers the words for blue"
        by_class = {row["category"]: row for row in found["quality"]["per_class"]}
        assert by_class["blue"]["boxes"] == 0 < by_class["red"]["boxes"] == found["boxes"]
        made_dataset = client.datasets.get(found["made_dataset_id"])
        assert (made_dataset["state"], made_dataset["supervision"]) == ("ready", "pseudo_boxes")
        no_candidate(client, dataset["id"], teacher["id"])


def no_candidate(client: Client, dataset_id: str, checkpoint_id: str) -> None:
    with pytest.raises(ProblemError) as refused:
        client.rankings.create(dataset_id, [checkpoint_id, checkpoint_id])
    assert refused.value.status in (409, 422)
    with pytest.raises(ProblemError) as refused:
        client.verifications.create(dataset_id, checkpoint_id)
    assert refused.value.status == 409
    assert "neither ranked nor fine-tuned" in str(refused.value)
