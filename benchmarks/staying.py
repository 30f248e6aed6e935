"""Seconds and memory of a dataset whose pictures stay where they are: pinned, a sample drawn and fetched, looked at again.

    python benchmarks/staying.py                            # a folder of 200,000 small files, a bucket of 4,000 objects
    python benchmarks/staying.py --files 20000 --sample 500 --only folder

Half of the files are JPEGs of 64 x 48, every one with other bytes, the others YOLO labels of two boxes. The bucket is moto's, in
another process. Each case runs in a process of its own, so that its peak of memory is its own; `import` is that of a process
that has loaded the library and done nothing.
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KINDS = 64


def write(folder: Path, pictures: int) -> Path:
    """Pictures and labels in folders of a thousand; bytes after the end of a JPEG make each another file."""
    import numpy as np  # noqa: PLC0415
    import PIL.Image  # noqa: PLC0415

    rng, kinds = np.random.default_rng(0), []
    for _ in range(KINDS):
        stream = io.BytesIO()
        small = PIL.Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        small.resize((64, 48)).save(stream, "JPEG", quality=85)
        kinds.append(stream.getvalue())
    for number in range(pictures):
        image, label = (
            folder / kind / f"{number // 1000:04d}" / f"{number:07d}{suffix}"
            for kind, suffix in (("images", ".jpg"), ("labels", ".txt"))
        )
        for path in (image, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(kinds[number % KINDS] + b"%08d" % number)
        label.write_text(f"{number % 3} 0.5 0.5 0.25 0.25\n{number % 2} 0.25 0.25 0.125 0.125\n")
    (folder / "data.yaml").write_text("names: [cat, dog, bird]\n")
    return folder


def measure(url: str, sample: int, beside: Path) -> dict[str, float]:
    """One case, in this process."""
    from worker.data.dataset import sample_images  # noqa: PLC0415
    from worker.data.sources.kept import KeptPictures  # noqa: PLC0415
    from worker.data.sources.pinned import Pinned  # noqa: PLC0415
    from worker.data.sources.pinning import Means, pin_dataset  # noqa: PLC0415
    from worker.data.sources.places import source_at  # noqa: PLC0415
    from worker.data.sources.sample import fetch_sample, look_again  # noqa: PLC0415

    loaded = peak_mib()
    with tempfile.TemporaryDirectory(dir=beside) as at:
        out, scratch, drawn = (Path(at) / name for name in ("out", "scratch", "drawn"))
        for folder in (out, scratch, drawn):
            folder.mkdir()
        kept = KeptPictures(Path(at) / "kept", 1 << 34)
        clock, cpu = [time.perf_counter()], time.process_time()
        found = pin_dataset(source_at(url), out, scratch, Means(kept))
        cpu, pinned_mib = time.process_time() - cpu, peak_mib()
        clock.append(time.perf_counter())
        pinned = Pinned.load(out)
        ids = [image.id for image in sample_images(pinned.as_dataset(out), sample, 0)]
        clock.append(time.perf_counter())
        fetch_sample(pinned, source_at(url), ids, drawn, kept=kept)
        clock.append(time.perf_counter())
        look_again(pinned, source_at(url), ids)
        clock.append(time.perf_counter())
        taken = [path for path in Path(at, "kept").rglob("*") if path.is_file()]
        return {
            "pictures": found.summary["images"],
            "sample": len(ids),
            "pin_s": clock[1] - clock[0],
            "pin_cpu_s": cpu,
            "draw_s": clock[2] - clock[1],
            "fetch_s": clock[3] - clock[2],
            "look_again_s": clock[4] - clock[3],
            "import_mib": loaded,
            "pin_mib": pinned_mib,
            "pinned_file_mib": sum(path.stat().st_size for path in out.iterdir()) / 2**20,
            "pictures_copied": len(taken),
        }


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def alone(url: str, sample: int, beside: Path) -> dict[str, float]:
    """The case in a process of its own."""
    command = [sys.executable, __file__, "--measure", url, "--sample", str(sample), "--beside", str(beside)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def on_s3(beside: Path, objects: int, sample: int) -> dict[str, float]:
    import boto3  # noqa: PLC0415
    from moto.server import ThreadedMotoServer  # noqa: PLC0415

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    client = boto3.client("s3")
    client.create_bucket(Bucket="pictures")
    folder = write(beside / "objects", objects // 2)
    for path in folder.rglob("*.*"):
        client.put_object(Bucket="pictures", Key=f"set/{path.relative_to(folder)}", Body=path.read_bytes())
    try:
        return alone("s3://pictures/set", sample, beside)
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--objects", type=int, default=4_000)
    parser.add_argument("--sample", type=int, default=1_000)
    parser.add_argument("--only", choices=("folder", "s3"))
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--beside", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure(asked.measure, asked.sample, asked.beside)))
        return
    with tempfile.TemporaryDirectory() as folder:
        beside = Path(folder).resolve()
        if asked.only != "s3":
            found = alone(write(beside / "set", asked.files // 2).as_uri(), asked.sample, beside)
            print("folder", json.dumps({name: round(value, 2) for name, value in found.items()}), flush=True)
        if asked.only != "folder":
            found = on_s3(beside, asked.objects, min(asked.sample, asked.objects // 4))
            print("s3", json.dumps({name: round(value, 2) for name, value in found.items()}), flush=True)


if __name__ == "__main__":
    main()
