"""Train, val and test: read from names in the archive, or drawn."""

import functools
import re
from collections.abc import Sequence

import numpy as np

SPLITS = ("train", "val", "test")
_ALIASES = {
    "train": "train",
    "training": "train",
    "trainval": "train",
    "val": "val",
    "valid": "val",
    "vali": "val",
    "validate": "val",
    "validation": "val",
    "dev": "val",
    "eval": "val",
    "test": "test",
    "testing": "test",
}
# Words that stand beside a split in the name of a folder (`train_images`, `obj_valid_data`, `WIDER_train`) and change nothing.
_BESIDE = (
    "set|split|data|dataset|obj|objects?|images?|imgs?|pics?|pictures?|photos?|frames?|jpegimages|labels?|lbls?|annotations?|annots?"
    "|annos?|anns?|txts?|xmls?|jsons?|yolo|voc|coco|wider|det|detection|the|my|part|folder|dir|full|final|all|new|raw|resized|v|ver|version|autosplit|lists?"
)
_WITH_A_WORD = re.compile(rf"({'|'.join(sorted(_ALIASES, key=len, reverse=True))})(?:{_BESIDE})")
_BESIDE_WORD = re.compile(_BESIDE)


def split_named(name: object) -> str | None:
    """The split that a word means (`valid`, `Validation`, `train2017`, `train_images`, `testset`), or None."""
    return _split_named(str(name))


@functools.lru_cache(maxsize=4096)
def _split_named(name: str) -> str | None:
    text = re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()
    found = set()
    for word in re.findall(r"[^\W\d_]+", text):
        joined = _WITH_A_WORD.fullmatch(word)
        if split := _ALIASES.get(joined[1] if joined else word):
            found.add(split)
        elif not _BESIDE_WORD.fullmatch(word):
            return None
    return found.pop() if len(found) == 1 else None


def split_of_folders(path: str) -> str | None:
    """The split named by the deepest folder of a relative POSIX path that names one."""
    for folder in reversed(path.split("/")[:-1]):
        if split := split_named(folder):
            return split
    return None


def split_of_file(path: str) -> str | None:
    """The split that an annotation file stands for: a word in its name (`instances_val2017.json`), else its folder."""
    name = path.rpartition("/")[2].partition(".")[0]
    for word in re.split(r"[^a-z]+", name.lower()):
        if word in _ALIASES:
            return _ALIASES[word]
    return split_named(name) or split_of_folders(path)


def draw(keys: Sequence[str], fractions: dict[str, float], seed: int) -> list[str]:
    """Give every key a split: `fractions` of them to val and test, the rest to train.

    The result follows the keys and the seed, not the order of the keys. A split with a fraction above 0 gets at
    least one key while train keeps at least one.
    """
    order = (
        np.argsort(np.asarray(keys, dtype=object), kind="stable")
        if len(keys)
        else np.zeros(0, dtype=np.int64)
    )
    shuffled = order[np.random.default_rng(seed).permutation(len(keys))]
    splits = ["train"] * len(keys)
    taken = 0
    for name, fraction in fractions.items():
        wanted = max(round(len(keys) * fraction), int(fraction > 0))
        count = min(wanted, max(len(keys) - 1 - taken, 0))
        for index in shuffled[taken : taken + count]:
            splits[index] = name
        taken += count
    return splits


def complete(
    splits: Sequence[str | None], keys: Sequence[str], *, seed: int, val_fraction: float, test_fraction: float
) -> tuple[list[str], str]:
    """Fill in the splits that the archive does not give.

    `keys` are one unchanging text per image (its sha256). Returns a split per image and one sentence on where they
    come from. Images without a split join train; with no val (or no train) at all, val is drawn.
    """
    found = {split for split in splits if split}
    by_seed = f"with seed {seed}"
    if len(found) <= 1:
        drawn = draw(keys, {"val": val_fraction, "test": test_fraction}, seed)
        only = f"all {next(iter(found))}" if found else "none"
        return (
            drawn,
            f"drawn {by_seed} (the archive names {only}): val {val_fraction:g}, test {test_fraction:g} of the images",
        )
    result = [split or "train" for split in splits]
    if found >= {"train", "val"}:
        return result, "from the archive"
    source = "train" if "train" in found else "val"
    undivided = [index for index, split in enumerate(result) if split in ("train", "val")]
    for index, split in zip(
        undivided, draw([keys[index] for index in undivided], {"val": val_fraction}, seed), strict=True
    ):
        result[index] = split
    return (
        result,
        f"test from the archive; train and val drawn {by_seed} from its {source} split: val {val_fraction:g} of the images",
    )
