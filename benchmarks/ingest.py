"""How long a dataset takes to be read, in what memory, and how much of that is the floor: every picture read and verified once.

    python benchmarks/ingest.py                    a YOLO set of 20,000 pictures, a COCO file of a million boxes
    python benchmarks/ingest.py --quick            a tenth of it
    python benchmarks/ingest.py --only yolo|coco

Each set is written once into a temporary folder and read in a process of its own, so that its peak of memory is its own. The
pictures are JPEG of 640 x 480 for YOLO, a size that is usual there, and of 64 x 48 for COCO, where boxes are what is measured.
The floor verifies the same pictures with two threads, as ingestion does, and does nothing else. Seconds are CPU time, which
other work on the machine hardly disturbs, with wall clock beside them.
"""

import argparse
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLASSES = ["cat", "dog", "cow"]


def _jpeg(width: int, height: int, seed: int) -> bytes:
    import numpy as np  # noqa: PLC0415
    import PIL.Image  # noqa: PLC0415

    rng = np.random.default_rng(seed)
    small = PIL.Image.fromarray(rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8))
    stream = io.BytesIO()
    small.resize((width, height)).save(stream, "JPEG", quality=85, comment=str(seed).encode())
    return stream.getvalue()


def write_yolo(folder: Path, pictures: int) -> None:
    """Pictures in train and val with six boxes each, in Ultralytics' layout."""
    for index in range(pictures):
        split = "val" if index % 5 == 0 else "train"
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        (folder / f"images/{split}/{index:06}.jpg").write_bytes(_jpeg(640, 480, index))
        rows = (f"{place % 3} {0.1 + 0.15 * place:.6f} 0.5 0.12 0.3\n" for place in range(6))
        (folder / f"labels/{split}/{index:06}.txt").write_text("".join(rows))
    (folder / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: {CLASSES}\n")


def write_coco(folder: Path, boxes: int) -> None:
    """One file with 500 boxes for each of its small pictures."""
    (folder / "images").mkdir()
    pictures = max(1, boxes // 500)
    for index in range(pictures):
        (folder / f"images/{index:06}.jpg").write_bytes(_jpeg(64, 48, index))
    rows = [
        {
            "id": number + 1,
            "image_id": number // 500 + 1,
            "category_id": number % 3 + 1,
            "bbox": [number % 50, number // 50 % 10 * 4, 5 + number % 7, 4],
            "area": 20,
            "iscrowd": 0,
        }
        for number in range(boxes)
    ]
    images = [
        {"id": index + 1, "file_name": f"{index:06}.jpg", "width": 64, "height": 48}
        for index in range(pictures)
    ]
    categories = [{"id": place, "name": name} for place, name in enumerate(CLASSES, start=1)]
    content = {"images": images, "annotations": rows, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))


def _measured(work: Callable[[], object]) -> dict:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "result": result,
    }


def child(part: str, folder: Path) -> dict:
    """`floor`: verify every picture. `read`: the annotations alone. `ingest`: everything, canonical form written."""
    from worker.data.faults import Report  # noqa: PLC0415
    from worker.data.ingest import ingest, read_annotations  # noqa: PLC0415
    from worker.data.lookahead import in_order  # noqa: PLC0415
    from worker.data.pictures import inspect  # noqa: PLC0415
    from worker.data.tree import walk  # noqa: PLC0415

    def floor() -> int:
        tree = walk(folder)
        return sum(
            1 for _ in in_order(lambda path: inspect(tree.absolute(path)), tree.images, threads=2, ahead=8)
        )

    def read() -> int:
        _, raw = read_annotations(walk(folder), None, Report())
        return sum(len(image.boxes) for image in raw.images)

    def whole() -> int:
        with tempfile.TemporaryDirectory(dir=folder.parent) as out:
            return ingest(folder, Path(out) / "canonical").summary["annotations"]

    return _measured({"floor": floor, "read": read, "ingest": whole}[part])


def run(name: str, folder: Path) -> None:
    """Print a row for each part, each measured in a process of its own."""
    found = {}
    for part in ("floor", "read", "ingest"):
        command = [sys.executable, __file__, "--child", part, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[part] = json.loads(done.stdout)
        row = found[part]
        print(
            f"{name:5} {part:7} {row['cpu_s']:7.1f} s CPU {row['wall_s']:7.1f} s wall {row['peak_mib']:7.0f} MiB  "
            f"{row['result']:,}",
            flush=True,
        )
    print(
        f"{name:5} the floor is {found['floor']['cpu_s'] / found['ingest']['cpu_s']:.0%} of the CPU time of ingestion"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=["yolo", "coco"])
    parser.add_argument("--child", nargs=2, metavar=("PART", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(args.child[0], Path(args.child[1]))))
        return
    scale = 10 if args.quick else 1
    for name, write, count in (("yolo", write_yolo, 20_000), ("coco", write_coco, 1_000_000)):
        if args.only in (None, name):
            with tempfile.TemporaryDirectory(prefix="detrank-ingest-") as folder:
                source = Path(folder) / "in"
                source.mkdir()
                write(source, count // scale)
                run(name, source)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
