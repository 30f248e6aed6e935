"""How fast features are read, against the published way, and how far from the limit; a ranking of eight; memory.

    python benchmarks/extraction.py            everything: some minutes with a GPU, half an hour with two cores
    python benchmarks/extraction.py --quick    few images, 320 pixels
    python benchmarks/extraction.py --only speed|ranking|memory
    python benchmarks/extraction.py --models resnet50 --sizes 800 --precisions bfloat16 --layers all

Same weights (random, full size), images and layers, in one process, in turns:

    a  the published way: the whole detector with hooks on its layers, batches of 4, pictures decoded and resized one by
       one, ROI align and means of every map, a file for each layer and batch (torch.save)
    b  worker.features.extract, nothing kept from before
    c  the limit: backbone and neck alone as far as these layers need them, on tensors that are there already, in the
       same precision, with folded norms, channels last and the batch size of b

Layers: `all` are the maps of backbone and neck that the published system reads, `default` is backbone.c4, objects only.
With one thread the time is CPU time, which other work on the machine hardly disturbs, else wall clock; each is the
fastest of some turns. a reads fewer images where that would take long: it costs the same for each.
"""

import argparse
import ctypes
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

from published_extraction import Published

ROOT = Path(__file__).resolve().parent.parent
MODELS = {
    "resnet50": ("torchvision/fasterrcnn_resnet50_fpn", None),
    "mobilenet_v3": ("torchvision/fasterrcnn_mobilenet_v3_large_fpn", None),
    "deformable_detr": ("detrank/deformable_detr", "torchvision/resnet50"),
}
EIGHT = (
    "torchvision/mobilenet_v2",
    "torchvision/mobilenet_v3_large",
    "torchvision/resnet18",
    "torchvision/squeezenet1_1",
    "torchvision/efficientnet_b0",
    "torchvision/regnet_y_400mf",
    "torchvision/shufflenet_v2_x1_0",
    "torchvision/mnasnet1_0",
)
SIDE = 640
OBJECTS = 5


def write_dataset(folder, count, side=SIDE, seed=0):
    """A canonical dataset of `count` square pictures, JPEG as from a camera, with some boxes each."""
    import numpy as np  # noqa: PLC0415
    import PIL.Image  # noqa: PLC0415

    from worker.data.dataset import open_dataset  # noqa: PLC0415
    from worker.data.ingest import ingest  # noqa: PLC0415

    rng = np.random.default_rng(seed)
    source = folder / "source"
    source.mkdir(parents=True)
    images, annotations = [], []
    for number in range(1, count + 1):
        coarse = PIL.Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).resize(
            (side, side), 3
        )
        noisy = np.asarray(coarse, np.int16) + rng.integers(-12, 13, (side, side, 3))
        name = f"{number:05d}.jpg"
        PIL.Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(source / name, quality=90)
        images.append({"id": number, "file_name": name, "width": side, "height": side})
        for _ in range(OBJECTS):
            w, h = rng.uniform(side / 16, side / 2, 2)
            x, y = rng.uniform(0, side - w), rng.uniform(0, side - h)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(rng.integers(1, 6)),
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": f"class {number}"} for number in range(1, 6)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (source / "annotations.json").write_text(json.dumps(document))
    (folder / "dataset").mkdir()
    ingest(source, folder / "dataset")
    return open_dataset(folder / "dataset")


def random_detector(name, backbone, device="cpu"):
    """The architecture at full size with random weights, as `load_detector` gives one."""
    import torch  # noqa: PLC0415

    from models_store.build import architecture_of, build_module, layers_of  # noqa: PLC0415
    from models_store.detector import TorchvisionDetector  # noqa: PLC0415
    from models_store.manifest import Manifest  # noqa: PLC0415

    architecture = architecture_of(name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build_module(
            architecture, num_classes=91, input=architecture.input, backbone=backbone, options={}
        ).eval()
    face = architecture.face(module) if architecture.wrap is None else None
    layers = layers_of(face, ()) if face else architecture.layers(module, architecture.input, ())
    manifest = Manifest(
        architecture=name,
        format="random",
        kind="detector",
        input=architecture.input,
        layers=layers,
        backbone=backbone,
        parameters=sum(p.numel() for p in module.parameters()),
        source={},
        weights_sha256="0" * 64,
    )
    module = module.to(device)
    return TorchvisionDetector(manifest, module, face) if face else architecture.wrap(manifest, module)


def layers_and_levels(detector, which):
    maps = [layer.name for layer in detector.layers if layer.kind == "map"]
    published = [
        name
        for name in maps
        if name.startswith("backbone.") or name in ("neck.p2", "neck.p3", "neck.p4", "neck.p5")
    ]
    published += [name for name in maps if name.startswith("encoder.memory")]
    return (tuple(published), ("local", "global")) if which == "all" else (("backbone.c4",), ("local",))


class Timer:
    """Seconds of what is run: CPU time with one thread, else wall clock; on CUDA until all is done."""

    def __init__(self, device, threads):
        self.device = device
        self.clock = time.process_time if device == "cpu" and threads == 1 else time.perf_counter

    def __call__(self, call):
        import torch  # noqa: PLC0415

        start = self.clock()
        result = call()
        if self.device != "cpu":
            torch.cuda.synchronize()
        return self.clock() - start, result


def limit(detector, layers, size, precision, count, device):
    """A call that runs backbone and neck alone on tensors in memory for `count` images; how many it really runs."""
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415

    from models_store.fold import folded  # noqa: PLC0415
    from worker.features.forward import Reader  # noqa: PLC0415

    chosen = [layer for layer in detector.layers if layer.name in layers]
    reader = Reader(detector, chosen, ("local",), size, torch.device(device), precision)
    maps = list(dict.fromkeys(name for layer in chosen for name in detector.map_layers(layer.name)))
    batch = reader.batch_size((size, size))
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    pixels = detector.prepare([noise] * batch, size).to(device, memory_format=torch.channels_last)
    dtype = getattr(torch, precision)
    with torch.no_grad():
        weights = folded(detector.module, lambda: detector.feature_maps(pixels[:1], maps), dtype)

    def run():
        low = torch.autocast(device, dtype=dtype) if precision != "float32" else nullcontext()
        with torch.no_grad(), weights, low:
            for _ in range(count // batch):
                detector.feature_maps(pixels, maps)

    return run, count // batch * batch


def speed(args, report):
    import torch  # noqa: PLC0415

    from worker.features.spec import Spec  # noqa: PLC0415

    report("Milliseconds for an image. a: published, b: ours, c: limit; b' with decoded pictures kept\n")
    report(
        f"{'model':16} {'size':>4} {'layers':8} {'precision':9} {'a':>8} {'b':>7} {'c':>7} {'b-warm':>7}"
        f" {'a/b':>6} {'b/c':>5}   of b: decode prepare forward pool rest"
    )
    timer = Timer(args.device, args.threads)
    with tempfile.TemporaryDirectory() as home:
        home = Path(home)
        dataset = write_dataset(home / "data", args.images)
        for model in args.models:
            detector = random_detector(*MODELS[model], args.device)
            for size in args.sizes:
                for which in args.layers:
                    layers, levels = layers_and_levels(detector, which)
                    spec = Spec(layers=layers, levels=levels, image_size=size, split=None)
                    rows = {precision: {"b": [], "w": [], "c": []} for precision in args.precisions}
                    a, steps = [], {}
                    for _ in range(args.turns):
                        a.append(published_turn(detector, layers, home, size, dataset, args, timer))
                        for precision, row in rows.items():
                            one_turn(detector, dataset, spec, precision, home, row, steps, args, timer)
                    for precision, row in rows.items():
                        ms = {"a": min(a), **{name: min(values) for name, values in row.items()}}
                        parts = steps[precision]
                        rest = parts["total"] - sum(
                            parts[step] for step in ("decode", "prepare", "forward", "pool")
                        )
                        shares = [*(parts[step] for step in ("decode", "prepare", "forward", "pool")), rest]
                        report(
                            f"{model:16} {size:4} {which:8} {precision:9} {ms['a']:8.0f} {ms['b']:7.1f} {ms['c']:7.1f}"
                            f" {ms['w']:7.1f} {ms['a'] / ms['b']:6.2f} {ms['b'] / ms['c']:5.2f}          "
                            + " ".join(f"{share / parts['total']:6.0%}" for share in shares)
                        )
    if args.device != "cpu":
        report(f"on {torch.cuda.get_device_name()}")


def published_turn(detector, layers, home, size, dataset, args, timer):
    """Milliseconds for an image of the published way, over as many whole batches as `--published` says."""
    import torch  # noqa: PLC0415

    images = dataset.images[: args.published]
    with tempfile.TemporaryDirectory(dir=home) as folder:
        published = Published(detector, layers, Path(folder), size, args.device)
        detector.module.to(memory_format=torch.contiguous_format)
        try:
            seconds, _ = timer(lambda: published.run(dataset, images))
        finally:
            published.close()
    return seconds / len(images) * 1e3


def one_turn(detector, dataset, spec, precision, home, row, steps, args, timer):
    """Adds milliseconds for an image of ours, cold and with kept pictures, and of the limit."""
    from worker.data.pixels import PixelCache  # noqa: PLC0415
    from worker.features.extract import extract  # noqa: PLC0415
    from worker.features.reading import reading_of  # noqa: PLC0415

    count = len(dataset.images)
    with tempfile.TemporaryDirectory(dir=home) as folder:
        kept = PixelCache(Path(folder), 1 << 34)
        for name in ("b", "w"):
            seconds, features = timer(
                lambda: extract(
                    reading_of(detector, dataset, spec, device=args.device, precision=precision),
                    pixels=kept,
                    decode_threads=args.decode_threads,
                )
            )
            row[name].append(seconds / count * 1e3)
            if name == "b":
                steps[precision] = features.seconds
    run, really = limit(detector, spec.layers, spec.image_size, precision, count, args.device)
    run()
    seconds, _ = timer(run)
    row["c"].append(seconds / really * 1e3)


def ranking(args, report):
    """Eight candidates on one dataset: everything together against the sum of the forward passes alone."""
    from worker.catalogue import DEFAULT_METRICS  # noqa: PLC0415
    from worker.data.pixels import PixelCache  # noqa: PLC0415
    from worker.features.extract import extract  # noqa: PLC0415
    from worker.features.reading import reading_of  # noqa: PLC0415
    from worker.features.spec import Spec  # noqa: PLC0415
    from worker.metrics import FeatureSet, score  # noqa: PLC0415

    timer = Timer(args.device, args.threads)
    size = args.ranking_size
    report(
        f"\nA ranking of eight candidates on {args.ranking_images} images, {size} pixels, backbone.c4, objects"
    )
    report(f"{'candidate':34} {'forward alone':>13} {'features':>9} {'scores':>7} {'ratio':>6}   seconds")
    sums = [0.0, 0.0, 0.0]
    with tempfile.TemporaryDirectory() as home:
        dataset = write_dataset(Path(home) / "data", args.ranking_images)
        kept = PixelCache(Path(home) / "pixels", 1 << 35)
        spec = Spec(layers=("backbone.c4",), image_size=size, split=None)
        for backbone in EIGHT:
            detector = random_detector("detrank/fasterrcnn_fpn", backbone, args.device)
            run, really = limit(detector, spec.layers, size, "float32", args.ranking_images, args.device)
            features_s, features = timer(
                lambda detector=detector: extract(
                    reading_of(detector, dataset, spec, device=args.device),
                    pixels=kept,
                    decode_threads=args.decode_threads,
                )
            )
            table = features.layers["backbone.c4", "local"]
            prepared = FeatureSet(table, features.labels, features.boxes, image_ids=features.image_ids)
            scores_s, _ = timer(lambda prepared=prepared: score(prepared, DEFAULT_METRICS))
            forward_s, _ = timer(run)
            forward_s *= args.ranking_images / really
            sums = [before + now for before, now in zip(sums, (forward_s, features_s, scores_s), strict=True)]
            report(
                f"{backbone:34} {forward_s:13.2f} {features_s:9.2f} {scores_s:7.2f}"
                f" {(features_s + scores_s) / forward_s:6.2f}"
            )
    report(
        f"{'together':34} {sums[0]:13.2f} {sums[1]:9.2f} {sums[2]:7.2f} {(sums[1] + sums[2]) / sums[0]:6.2f}"
    )


def memory(args, report):
    """Peak memory of reading N and 4 N images, statistics gathered on the way, each in a process of its own."""
    report("\nPeak memory (MB) of gathering statistics of mobilenet_v2, 320 pixels, backbone.c4")
    for count in (args.memory_images, 4 * args.memory_images):
        task = json.dumps({"images": count, "device": args.device, "decode_threads": args.decode_threads})
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(args.threads)}
        done = subprocess.run(
            [sys.executable, __file__, "--child", task],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        found = json.loads(done.stdout.splitlines()[-1])
        report(f"{count:6} images: {found['before']:6.0f} before, {found['peak']:6.0f} at most")


def memory_child(task):
    import torch  # noqa: PLC0415

    from worker.data.pixels import PixelCache  # noqa: PLC0415
    from worker.features.reading import reading_of  # noqa: PLC0415
    from worker.features.spec import Spec  # noqa: PLC0415
    from worker.features.statistics import design_of, read_statistics  # noqa: PLC0415

    detector = random_detector("detrank/fasterrcnn_fpn", "torchvision/mobilenet_v2", task["device"])
    spec = Spec(layers=("backbone.c4",), image_size=320, split=None)
    with tempfile.TemporaryDirectory() as home:
        dataset = write_dataset(Path(home) / "data", task["images"], side=SIDE // 2)
        kept = PixelCache(Path(home) / "pixels", 1 << 35)
        reading = reading_of(detector, dataset, spec, device=task["device"])
        design = design_of(reading, ["logme", "h_score"], permutations=0, groups=0, seed=0)
        with torch.no_grad():
            detector.feature_maps(detector.prepare([_grey()], 320), ["backbone.c4"])
        ctypes.CDLL(None).malloc_trim(0)
        before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        for _ in range(2):
            read_statistics(
                reading, reading.images, design, decode_threads=task["decode_threads"], pixels=kept
            )
        print(json.dumps({"before": before, "peak": status("VmHWM")}))


def _grey():
    import numpy as np  # noqa: PLC0415

    return np.full((SIDE, SIDE, 3), 128, np.uint8)


def status(field):
    """Megabytes of a field of /proc/self/status."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) / 1024


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=("speed", "ranking", "memory"))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--sizes", nargs="+", type=int, default=None)
    parser.add_argument("--layers", nargs="+", choices=("all", "default"), default=["all", "default"])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--images", type=int, default=None, help="of b and c")
    parser.add_argument("--published", type=int, default=None, help="images of a")
    parser.add_argument("--turns", type=int, default=None)
    parser.add_argument("--ranking-images", type=int, default=None)
    parser.add_argument("--ranking-size", type=int, default=320)
    parser.add_argument("--memory-images", type=int, default=None)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--decode-threads", type=int, default=2)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    for name, full, quick in (
        ("sizes", [800, 320], [320]),
        ("images", 24, 8),
        ("published", 8, 4),
        ("turns", 3, 1),
        ("ranking_images", 1000, 60),
        ("memory_images", 200, 50),
    ):
        if getattr(args, name) is None:
            setattr(args, name, quick if args.quick else full)

    import torch  # noqa: PLC0415  after the arguments, so that --help is quick

    torch.set_num_threads(args.threads)
    if args.child:
        memory_child(json.loads(args.child))
        return
    written = io.StringIO()

    def report(line):
        print(line, flush=True)
        written.write(line + "\n")

    report(f"torch {torch.__version__}, {args.device}, {args.threads} threads, {time.strftime('%Y-%m-%d')}")
    parts = {"speed": speed, "ranking": ranking, "memory": memory}
    for name, part in parts.items():
        if args.only in (None, name):
            part(args, report)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
