"""One architecture, four source domains and no training at all: the order on real pictures has to make sense."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import mobilenet_v2

import models_store
from worker.data.dataset import Dataset, open_dataset
from worker.data.ingest import ingest
from worker.features.extract import Spec, extract
from worker.metrics import FeatureSet, score
from worker.ranking.order import order
from worker.ranking.records import Candidate, Ordering, Scored, Target

pytestmark = pytest.mark.slow

# SOURCE.txt of each says how its input was normalised
HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}
LADDER = {"imagenet_b": {}, "from_coco_ssd": HALF, "from_hand_ssd": HALF, "skin": HALF}
METRICS = ("logme", "logme_boxes", "tlogme", "h_score_regularized")
# all training images: on a few dozen the middle of the ladder is a matter of luck
SPEC = Spec(max_images=None, image_size=256)


@pytest.fixture(scope="module")
def candidates(
    tmp_path_factory: pytest.TempPathFactory, shared_data: Path
) -> dict[str, models_store.Detector]:
    folder = tmp_path_factory.mktemp("candidates")
    sources = {
        name: shared_data / f"weights/mobilenet_v2_{name}/mobilenet_v2_features.fp16.safetensors"
        for name in LADDER
    }
    torch.manual_seed(0)
    sources["random"] = folder / "random.safetensors"
    save_file(mobilenet_v2().state_dict(), sources["random"])
    found = {}
    for name, source in sources.items():
        models_store.convert(source, folder / name, overrides=LADDER.get(name))
        found[name] = models_store.load_detector(folder / name)
    return found


def ranked(dataset: Dataset, candidates: dict[str, models_store.Detector]) -> Ordering:
    rows = []
    for name, detector in candidates.items():
        features = extract(detector, dataset, SPEC)
        scores = [
            Scored(metric, layer, level, each.value, each.undefined)
            for (layer, level), table in features.layers.items()
            for metric, each in score(
                FeatureSet(table, features.labels, features.boxes, None, features.image_ids), METRICS
            ).items()
        ]
        rows.append(Candidate(name, name, tuple(scores)))
    counts = {name: int((features.labels == index).sum()) for index, name in enumerate(features.categories)}
    return order(rows, Target(counts))


@pytest.mark.parametrize("name", ["pennfudan", "ships"])
def test_ladder_is_sane(
    name: str, candidates: dict[str, models_store.Detector], shared_data: Path, tmp_path: Path
) -> None:
    ingest(shared_data / "datasets" / name, tmp_path)
    ordering = ranked(open_dataset(tmp_path), candidates)
    # one category: only where the objects are can be scored, and the default rule knows
    assert (ordering.metric, ordering.layer, ordering.level) == ("logme_boxes", "backbone.c4", "local")
    names = [row.name for row in ordering.rows]
    assert names[-2:] == ["skin", "random"], [(row.name, row.value) for row in ordering.rows]
    # detectors know where things are better than classifiers do
    assert set(names[:2]) == {"from_coco_ssd", "from_hand_ssd"}
