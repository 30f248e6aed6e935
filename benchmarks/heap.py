"""What keeping freed memory saves on a CPU: the same passes and training steps with the C library's defaults and as workers have it.

    python benchmarks/heap.py                       # one thread
    python benchmarks/heap.py --threads 2 --steps 20

An untrained Faster R-CNN over MobileNetV3, four pictures of 320 pixels at once. Each way runs in a process of its own, twice, in turns;
the faster counts. `kernel`: seconds of the processor's time that the kernel took, most of it to make pages; `peak`: the most
memory that was resident.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WAYS = ("plain", "kept")
ROUNDS = 2


def measure(way: str, threads: int, steps: int) -> dict[str, dict[str, float]]:
    """Of inference and of training: wall seconds, user and kernel seconds, pages made, and the peak in MB."""
    import torch  # noqa: PLC0415
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn  # noqa: PLC0415

    from worker import heap  # noqa: PLC0415

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if way == "kept" and not heap.keep_freed():
        sys.exit("the C library here cannot be told to keep what is freed")
    # an untrained one proposes everything: as many boxes as a trained one has
    few = {f"rpn_{when}_nms_top_n_{how}": 100 for when in ("pre", "post") for how in ("train", "test")}
    network = fasterrcnn_mobilenet_v3_large_fpn(weights=None, weights_backbone=None, min_size=320, **few)
    pictures = [torch.rand(3, 320, 420) for _ in range(4)]
    target = {
        "boxes": torch.tensor([[10.0, 10, 100, 100], [50, 50, 200, 200]]),
        "labels": torch.tensor([1, 2]),
    }

    def look() -> None:
        network.eval()
        with torch.inference_mode():
            network(pictures)

    def train() -> None:
        network.train()
        sum(network(pictures, [target] * len(pictures)).values()).backward()
        network.zero_grad()

    return {name: timed(work, steps) for name, work in (("inference", look), ("training", train))}


def timed(work, steps: int) -> dict[str, float]:
    for _ in range(2):
        work()
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for _ in range(steps):
        work()
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    return {
        "wall": wall,
        "user": after.ru_utime - before.ru_utime,
        "kernel": after.ru_stime - before.ru_stime,
        "pages": after.ru_minflt - before.ru_minflt,
        "peak": after.ru_maxrss / 1024,
    }


def in_process(way: str, threads: int, steps: int) -> dict[str, dict[str, float]]:
    command = [sys.executable, __file__, "--only", way, "--threads", str(threads), "--steps", str(steps)]
    told = subprocess.run(command, capture_output=True, check=True, cwd=ROOT, text=True)
    return json.loads(told.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        sys.stdout.write(json.dumps(measure(args.only, args.threads, args.steps)))
        return
    runs = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way in WAYS:
            runs[way].append(in_process(way, args.threads, args.steps))
    print(f"{args.threads} threads, {args.steps} steps of 4 pictures of 320 pixels")
    print(f"{'':10}{'':7}{'wall s':>8}{'user s':>8}{'kernel s':>9}{'pages':>9}{'peak MB':>9}")
    for kind in ("inference", "training"):
        best = {way: min((run[kind] for run in runs[way]), key=lambda run: run["wall"]) for way in WAYS}
        for way, found in best.items():
            print(
                f"{kind:10}{way:7}{found['wall']:8.2f}{found['user']:8.2f}{found['kernel']:9.2f}"
                f"{found['pages']:9.0f}{found['peak']:9.0f}"
            )
        print(f"{kind:10}ratio  {best['plain']['wall'] / best['kept']['wall']:8.2f}")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
