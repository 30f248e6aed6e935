"""Our training step and epoch against a plain torchvision loop: same model, weights, images, batch and optimiser.

    python benchmarks/training.py                 batches of 4 and 8; 320 pixels on a CPU, 800 on CUDA
    python benchmarks/training.py --quick         one small model, one batch size, few steps
    python benchmarks/training.py --dataset FOLDER   a canonical dataset instead of made-up pictures
    python benchmarks/training.py --init          only what data-dependent initialisation costs

The plain loop is the published one: float32, contiguous tensors, a DataLoader that decodes each picture anew in every
epoch, torchvision's own model and transform, Adam. `step` is one fixed batch through network, gradients and optimiser;
`epoch` has the decoding too, from the second epoch on. Ours once in float32 and once in the precision that `auto`
gives here. The two ways take turns, so that other work on the machine hits both; medians; a ratio above 1 means ours
is faster. The last line is the share that data-dependent initialisation has of a whole training by the recipe `quick`:
a placed MobileNetV2, everything else fresh, pictures decoded before. With one thread (OMP_NUM_THREADS=1) the step is CPU time, otherwise wall clock.
"""

import argparse
import contextlib
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from torch.utils.data import DataLoader
from torchvision.transforms.functional import to_tensor

from models_store.archs import ARCHITECTURES
from models_store.build import build_module, layers_of
from models_store.detector import TorchvisionDetector
from models_store.manifest import Manifest
from models_store.pooling import training_pools
from worker.data.dataset import Dataset, open_dataset
from worker.data.ingest import ingest
from worker.training.data_dependent_init import data_dependent_init
from worker.training.examples import examples_of
from worker.training.optimiser import optimiser_of
from worker.training.order import made_ready
from worker.training.pictures import Pictures
from worker.training.plan import plan_of
from worker.training.randomness import per_image_samplers
from worker.training.recipe import Augmentation
from worker.training.step import Stepper, precision_of

MODELS = {
    "torchvision/fasterrcnn_resnet50_fpn": {"frozen_norm": True},
    "torchvision/fasterrcnn_mobilenet_v3_large_fpn": {"frozen_norm": True},
    "torchvision/retinanet_resnet50_fpn": {"frozen_norm": True},
}
CLASSES = 3
NO_AUGMENTATION = Augmentation()


def made_up(root: Path, count: int, seed: int = 0) -> Dataset:
    """JPEG pictures of 640 x 480 with rectangles of three colours on noise."""
    rng = np.random.default_rng(seed)
    (root / "raw" / "train").mkdir(parents=True)
    images, annotations = [], []
    for index in range(count):
        coarse = rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)
        pixels = np.asarray(
            PIL.Image.fromarray(coarse).resize((640, 480), PIL.Image.Resampling.BICUBIC)
        ).copy()
        for _ in range(6):
            w, h = rng.integers(30, 200, 2)
            x, y, label = rng.integers(0, 640 - w), rng.integers(0, 480 - h), rng.integers(0, CLASSES)
            pixels[y : y + h, x : x + w] = np.eye(3)[label] * 255
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": int(label) + 1,
                    "bbox": [int(v) for v in (x, y, w, h)],
                    "area": int(w * h),
                    "iscrowd": 0,
                }
            )
        PIL.Image.fromarray(pixels).save(root / "raw" / "train" / f"{index}.jpg", quality=90)
        images.append({"id": index + 1, "file_name": f"{index}.jpg", "width": 640, "height": 480})
    (root / "raw" / "annotations").mkdir()
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i + 1, "name": str(i)} for i in range(CLASSES)],
    }
    (root / "raw" / "annotations" / "instances_train.json").write_text(json.dumps(content))
    ingest(root / "raw", root / "canonical", val_fraction=0.0)
    return open_dataset(root / "canonical")


def detector_of(
    name: str, classes: int, device: torch.device, backbone: str | None = None
) -> TorchvisionDetector:
    architecture, options = ARCHITECTURES[name], MODELS.get(name, {})
    module = build_module(
        architecture, num_classes=classes, input=architecture.input, backbone=backbone, options=options
    )
    face = architecture.face(module)
    manifest = Manifest(
        architecture=name,
        format="benchmark",
        kind="detector",
        input=architecture.input,
        layers=layers_of(face, ()),
        parameters=0,
        source={},
        weights_sha256="",
        num_classes=classes,
        backbone=backbone,
        options=options,
    )
    return TorchvisionDetector(manifest, module.to(device), face)


class Plain:
    """The published loop."""

    def __init__(self, name: str, dataset: Dataset, batch: int, size: int, device: torch.device) -> None:
        self.device, self.batch = device, batch
        self.detector = detector_of(name, len(dataset.categories), device)
        self.module = self.detector.module.train().requires_grad_(True)
        self.module.transform.min_size, self.module.transform.max_size = (size,), 2 * size
        self.optimiser = torch.optim.Adam(self.module.parameters(), lr=1e-5)
        self.examples, _ = examples_of(dataset, [image.id for image in dataset.images], None, masks=False)
        self.loader = DataLoader(
            self, batch, shuffle=True, num_workers=2, collate_fn=lambda rows: tuple(zip(*rows, strict=True))
        )
        self.fixed = tuple(zip(*(self[i] for i in range(batch)), strict=True))

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple:
        example = self.examples[index]
        image = to_tensor(PIL.Image.open(example.image.path).convert("RGB"))
        return image, {
            "boxes": torch.from_numpy(example.boxes),
            "labels": torch.from_numpy(example.labels) + 1,
        }

    def step(self, batch: tuple) -> None:
        images, targets = batch
        images = [image.to(self.device) for image in images]
        targets = [{name: value.to(self.device) for name, value in target.items()} for target in targets]
        loss = sum(self.module(images, targets).values())
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        loss.item()

    def epoch(self) -> None:
        for batch in self.loader:
            self.step(batch)


class Ours:
    """The same through the trainer's own parts."""

    def __init__(
        self, name: str, dataset: Dataset, batch: int, size: int, device: torch.device, precision: str
    ) -> None:
        self.detector = detector_of(name, len(dataset.categories), device)
        self.detector.module.to(memory_format=torch.channels_last)
        self.batch, self.size = batch, size
        recipe = "frcnn_full" if "fasterrcnn" in name else "sgd_1x"
        self.plan = plan_of(
            recipe,
            manifest=self.detector.manifest,
            images=len(dataset.images),
            batch_size=batch,
            freeze="none",
            precision=precision,
        )
        self.parts = contextlib.ExitStack()
        self.parts.enter_context(training_pools(self.detector))
        samplers = self.parts.enter_context(per_image_samplers(self.detector.module, None))
        self.stepper = Stepper(
            self.detector, self.plan, samplers, device, precision_of(precision, device), print
        )
        self.optimiser = optimiser_of(self.detector, self.plan.recipe, self.plan.phases[-1], device)
        self.examples, _ = examples_of(dataset, [image.id for image in dataset.images], None, masks=False)
        self.pictures = Pictures()
        self.iteration = 0
        self.batches = self.ready()
        self.fixed = next(self.batches)
        self.per_epoch = -(-len(self.examples) // batch)

    def ready(self):
        return made_ready(
            self.examples,
            self.pictures,
            NO_AUGMENTATION,
            batch_size=self.batch,
            seed=0,
            first=0,
            share=list,
            threads=2,
        )

    def step(self, batch: list) -> None:
        losses = self.stepper.step(batch, self.iteration, self.size, self.optimiser)
        self.iteration += 1
        sum(losses.values()).item()

    def epoch(self) -> None:
        for batch in itertools.islice(self.batches, self.per_epoch):
            self.step(batch)

    def close(self) -> None:
        self.batches.close()
        self.parts.close()


def alternating(calls: list[Callable[[], None]], times: int, device: torch.device, clock) -> list[float]:
    """Median seconds of each call; they take turns. The first turn is not counted."""
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(times + 1):
        for number, call in enumerate(calls):
            begin = clock()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:
                seconds[number].append(clock() - begin)
    return [statistics.median(values) for values in seconds]


def compare(
    name: str,
    dataset: Dataset,
    batch: int,
    size: int,
    device: torch.device,
    times: int,
    precisions: list[str],
) -> None:
    plain = Plain(name, dataset, batch, size, device)
    asked = [str(precision_of(kind, device)).removeprefix("torch.") for kind in precisions]
    kinds = list(dict.fromkeys(asked))
    ours = [Ours(name, dataset, batch, size, device, kind) for kind in kinds]
    clock = time.process_time if torch.get_num_threads() == 1 and device.type == "cpu" else time.perf_counter
    steps = alternating(
        [lambda: plain.step(plain.fixed), *(lambda one=one: one.step(one.fixed) for one in ours)],
        times,
        device,
        clock,
    )
    epochs = alternating(
        [plain.epoch, *(one.epoch for one in ours)], max(1, times // 3), device, time.perf_counter
    )
    short = name.removeprefix("torchvision/")
    for what, values in (("step", steps), ("epoch", epochs)):
        for kind, value in zip(kinds, values[1:], strict=True):
            print(
                f"{short:34s} {size:4d} px  batch {batch}  {what:5s}  plain {values[0]:8.3f} s  ours {kind:8s} "
                f"{value:8.3f} s  ratio {values[0] / value:5.2f}",
                flush=True,
            )
    for one in ours:
        one.close()


def beginning(dataset: Dataset, device: torch.device, times: int) -> None:
    """Prints the seconds of data-dependent initialisation beside those of all steps of a quick training."""
    name, backbone = "detrank/fasterrcnn_fpn", "torchvision/mobilenet_v2"
    detector = detector_of(name, len(dataset.categories), device, backbone)
    fresh = [n for n, _ in detector.module.named_parameters() if not n.startswith("backbone.body.")]
    detector.manifest = detector.manifest.but(initialised_keys=tuple(fresh))
    plan = plan_of("quick", manifest=detector.manifest, images=len(dataset.images))
    examples, _ = examples_of(dataset, [image.id for image in dataset.images], None, masks=False)
    size = plan.image_size
    with (
        training_pools(detector),
        per_image_samplers(detector.module, plan.recipe.rois) as samplers,
        Pictures() as pictures,
    ):
        stepper = Stepper(detector, plan, samplers, device, precision_of(plan.precision, device), print)
        optimiser = optimiser_of(detector, plan.recipe, plan.phases[-1], device)
        ready = made_ready(
            examples,
            pictures,
            plan.recipe.augmentation,
            batch_size=plan.batch_size,
            seed=0,
            first=0,
            share=list,
            threads=2,
        )
        with contextlib.closing(ready):
            batch = next(ready)
        clock = (
            time.process_time if torch.get_num_threads() == 1 and device.type == "cpu" else time.perf_counter
        )
        begin, step = alternating(
            [
                lambda: data_dependent_init(detector, plan, examples, pictures, samplers, size, threads=2),
                lambda: sum(stepper.step(batch, 0, size, optimiser).values()).item(),
            ],
            times,
            device,
            clock,
        )
    whole = plan.iterations * step
    print(
        f"data-dependent initialisation {begin:.2f} s, {begin / whole:.2%} of a quick training "
        f"({plan.iterations} steps of {step:.2f} s at {size} px)",
        flush=True,
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--quick", action="store_true")
    arguments.add_argument("--init", action="store_true")
    arguments.add_argument("--dataset", type=Path)
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments.add_argument("--size", type=int)
    arguments.add_argument("--batch", type=int, nargs="*")
    arguments.add_argument("--model", choices=sorted(MODELS))
    arguments.add_argument("--times", type=int)
    arguments.add_argument("--precision", nargs="*", default=["float32", "auto"])
    asked = arguments.parse_args()
    device = torch.device(asked.device)
    size = asked.size or (800 if device.type == "cuda" else 224 if asked.quick else 320)
    models = [asked.model] if asked.model else list(MODELS)[1:2] if asked.quick else list(MODELS)
    sizes = asked.batch or ([4] if asked.quick else [4, 8])
    times = asked.times or (2 if asked.quick else 5)
    sys.stdout.write(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads\n")
    with tempfile.TemporaryDirectory() as folder:
        images = max(sizes) * (2 if asked.quick else 3)
        dataset = open_dataset(asked.dataset) if asked.dataset else made_up(Path(folder), images)
        for name, batch in () if asked.init else itertools.product(models, sizes):
            compare(name, dataset, batch, size, device, times, asked.precision)
        beginning(dataset, device, times)


if __name__ == "__main__":
    main()
