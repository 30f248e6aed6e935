"""How fast the metrics are, against the plain published way, and how time and memory grow.

    python benchmarks/metrics.py              every shape, one BLAS thread, then the default number
    python benchmarks/metrics.py --quick      the small shapes only
    python benchmarks/metrics.py --only growth|precision|calibration|shapes

Each measurement runs in its own process, because the number of BLAS threads is fixed when numpy loads and peak
memory never falls. With one thread the time is CPU time, which other work on the machine hardly disturbs; with
the default number it is wall clock. The plain LogME is the published fixed point, which may stop short of the maximum, so
its difference stands in a column of its own. The floor is one symmetric product of the features, N D min(N, D) flops:
nothing exact that reads the features can be faster.
"""

import argparse
import ctypes
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMES = ["logme", "logme_boxes", "tlogme", "h_score", "h_score_regularized", "transrate"]
SHAPES = [(n, d, c) for d in (256, 1024, 2048) for n in (1000, 5000, 20000) for c in (10, 80)]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def features(n, d, c, seed=0):
    """Float32, like what a detector gives: rectified, decaying spectrum, imbalanced classes, a class signal."""
    import numpy as np  # noqa: PLC0415  after the number of threads is set

    rng = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, c + 1)
    y = np.concatenate([np.arange(c), rng.choice(c, n - c, p=weights / weights.sum())])
    spectrum = (1.0 + np.arange(d)) ** -0.5
    x = rng.standard_normal((n, d), dtype=np.float32) * spectrum.astype(np.float32)
    x += 0.5 * (rng.standard_normal((c, d)) * spectrum).astype(np.float32)[y]
    mix = rng.standard_normal((d, d), dtype=np.float32) / np.float32(d**0.5)
    x = np.maximum(x @ mix * 3, 0)
    low = rng.uniform(0, 0.6, (n, 2)) + 0.05 * x[:, :2] / (1 + x[:, :2])
    return x, y, np.hstack([low, low + rng.uniform(0.05, 0.3, (n, 2))])


def measure(call, repeats, clock):
    """Median seconds of `repeats` calls, and the last result."""
    seconds = []
    for _ in range(repeats):
        start = clock()
        result = call()
        seconds.append(clock() - start)
    return sorted(seconds)[len(seconds) // 2], result


def status(field):
    """Megabytes of a field of /proc/self/status."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) / 1024


def resident():
    """Megabytes in use now; the peak is counted from here on (Linux)."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def peak():
    return status("VmHWM")


def child(task):
    """One measurement in this process: what the parent asked for, as a dict that becomes JSON."""
    import numpy as np  # noqa: PLC0415
    from scipy.linalg import blas  # noqa: PLC0415

    from worker.metrics import FeatureSet, Options, score  # noqa: PLC0415

    clock = time.process_time if task["threads"] == 1 else time.perf_counter
    small = features(200, 32, 3)
    x, y, b = features(*task["shape"])
    f = FeatureSet(x, y, b, image_ids=np.arange(len(y)) // 5)
    out = {}
    if task["way"] == "plain":
        import published_metrics  # noqa: PLC0415

        for metric in published_metrics.PUBLISHED.values():
            metric(*small)
        before = resident()
        parts = {
            n: measure(lambda m=m: m(x, y, b), task["repeats"], clock)
            for n, m in published_metrics.PUBLISHED.items()
        }
        out["megabytes"] = peak() - before
        out["seconds"] = sum(seconds for seconds, _ in parts.values())
        out["parts"] = {name: seconds for name, (seconds, _) in parts.items()}
        out["values"] = {name: float(value) for name, (_, value) in parts.items()}
    elif task["way"] == "ours":
        options = Options(**task.get("options", {}))
        score(FeatureSet(*small), NAMES, permutations=2, options=options)
        arguments = {**task.get("arguments", {}), "options": options}
        names = task.get("names", NAMES)
        before = resident()
        out["seconds"], scores = measure(lambda: score(f, names, **arguments), task["repeats"], clock)
        out["megabytes"] = peak() - before
        out["values"] = {name: s.value for name, s in scores.items()}
    if task["way"] == "floor":
        exact = x.astype(np.float64)
        wide = int(x.shape[0] <= x.shape[1])
        out["seconds"], _ = measure(
            lambda: blas.dsyrk(1.0, exact.T, trans=wide, lower=1), task["repeats"], clock
        )
    return out


def run(shape, way, threads, repeats=3, **more):
    """A child process for one measurement; threads 0 leaves the default."""
    env = {k: v for k, v in os.environ.items() if k not in THREADS}
    if threads:
        env |= dict.fromkeys(THREADS, str(threads))
    env["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}"
    task = {"shape": shape, "way": way, "threads": threads, "repeats": repeats, **more}
    done = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps(task)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def difference(a, b, *, logme=False):
    """Largest relative difference of the values that both have, of LogME's or of all others'."""
    both = [(a[n], b[n]) for n in a if ("logme" in n) == logme and b.get(n) is not None and a[n] is not None]
    return max(abs(p - q) / abs(q) for p, q in both)


def shapes(chosen, threads):
    kind = "CPU seconds, one BLAS thread" if threads == 1 else "wall seconds, default BLAS threads"
    print(f"\nLogME, LogME on boxes, TLogME, H, regularised H, TransRate from one pass ({kind})")
    print(
        f"{'N':>6} {'D':>5} {'C':>3} {'plain':>8} {'ours':>8} {'ratio':>7} {'floor/ours':>10} {'diff':>8} {'LogME':>8} {'MB plain':>9} {'MB ours':>8}"
    )
    for shape in chosen:
        repeats = 1 if shape[0] * shape[1] ** 2 > 2e10 else 3
        plain = run(shape, "plain", threads, repeats)
        ours, floor = run(shape, "ours", threads), run(shape, "floor", threads)
        n, d, c = shape
        print(
            f"{n:>6} {d:>5} {c:>3} {plain['seconds']:>8.3f} {ours['seconds']:>8.3f} {plain['seconds'] / ours['seconds']:>6.1f}x "
            f"{floor['seconds'] / ours['seconds']:>10.2f} {difference(plain['values'], ours['values']):>8.0e} "
            f"{difference(plain['values'], ours['values'], logme=True):>8.0e} "
            f"{plain['megabytes']:>9.0f} {ours['megabytes']:>8.0f}",
            flush=True,
        )


def growth():
    print("\nGrowth of one pass (CPU seconds, one BLAS thread; extra peak memory)")
    axes = {
        "N": [(n, 512, 20) for n in (500, 2000, 8000, 32000)],
        "D": [(4000, d, 20) for d in (128, 256, 512, 1024, 2048)],
        "C": [(8000, 512, c) for c in (2, 10, 50, 200, 800)],
    }
    for axis, chosen in axes.items():
        for shape in chosen:
            ours = run(shape, "ours", 1)
            print(
                f"{axis}: N={shape[0]:>6} D={shape[1]:>5} C={shape[2]:>4} {ours['seconds']:>8.3f} s {ours['megabytes']:>6.0f} MB",
                flush=True,
            )


def precision():
    print("\nFloat32 products summed in float64, against float64 (CPU seconds, one BLAS thread)")
    for shape in [(5000, 256, 10), (20000, 1024, 10), (5000, 2048, 80)]:
        exact = run(shape, "ours", 1)
        mixed = run(shape, "ours", 1, options={"gram_precision": "float32"})
        errors = ", ".join(
            f"{n} {abs(mixed['values'][n] - v) / abs(v):.0e}" for n, v in exact["values"].items()
        )
        print(
            f"{shape}: {exact['seconds']:.3f} s, {mixed['seconds']:.3f} s; relative errors: {errors}",
            flush=True,
        )


def calibration():
    print(
        "\nNull of 20 permutations and interval of 20 groups beside the score alone (CPU seconds, one BLAS thread)"
    )
    linear = [name for name in NAMES if name != "transrate"]
    for shape in [(5000, 256, 10), (5000, 1024, 10), (1000, 2048, 10)]:
        for label, names in (("without TransRate", linear), ("with TransRate", NAMES)):
            alone, null, interval = (
                run(shape, "ours", 1, 1, names=names, arguments=arguments)["seconds"]
                for arguments in ({}, {"permutations": 20}, {"groups": 20})
            )
            print(
                f"{shape} {label}: {alone:.3f} s alone, {null:.3f} s with null, {interval:.3f} s with interval",
                flush=True,
            )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=["shapes", "growth", "precision", "calibration"])
    parser.add_argument("--threads", choices=["one", "default", "both"], default="both")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        json.dump(child(json.loads(arguments.child)), sys.stdout)
        return
    chosen = [s for s in SHAPES if s[0] * s[1] ** 2 < 1.1e9] if arguments.quick else SHAPES
    if arguments.only in (None, "shapes"):
        for threads in {"one": [1], "default": [0], "both": [1, 0]}[arguments.threads]:
            shapes(chosen, threads)
    for name, part in (("growth", growth), ("precision", precision), ("calibration", calibration)):
        if arguments.only in (None, name):
            part()


if __name__ == "__main__":
    main()
