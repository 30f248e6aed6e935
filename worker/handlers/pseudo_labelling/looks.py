"""What a teacher saw, in storage: computed once for each part of the pictures, found again by whoever needs it."""

from pathlib import Path

from worker.attempt import Attempt
from worker.data.dataset import Dataset, Image
from worker.handlers.pseudo_labelling.inputs import look_key, watching
from worker.handlers.ranking import feature_files
from worker.pretraining.proposals import part_of
from worker.pseudo_boxes.looked import Looked, key_of, save
from worker.pseudo_boxes.pseudo_boxes import Looking


def look(
    attempt: Attempt,
    dataset: Dataset,
    images: list[Image],
    teacher: Looking,
    part: tuple[int, int],
    folder: Path,
) -> None:
    """Looks at one part, (number, of how many), unless somebody has, and keeps what was seen. Raises BadPicture."""
    key = key_of(dataset.digest, look_key(teacher, images), *part)
    if feature_files.is_there(attempt, key):
        attempt.log("these pictures have been looked at before")
        return
    seen = {image.id: arrays for image, arrays in teacher.look(part_of(images, *part), watching(attempt))}
    path = folder / f"looked-{part[0]}.safetensors"
    save(path, seen)
    feature_files.keep(attempt, key, path)


def gathered(
    attempt: Attempt, dataset: Dataset, images: list[Image], teacher: Looking, parts: int, folder: Path
) -> Looked:
    """What was seen in every picture; a part that storage no longer has is looked at again."""
    paths = []
    for number in range(parts):
        key = key_of(dataset.digest, look_key(teacher, images), number, parts)
        path = feature_files.fetch(attempt, key, folder)
        if path is None:
            attempt.log(
                f"what was seen in part {number} is gone: the pictures are looked at again", "warning"
            )
            look(attempt, dataset, images, teacher, (number, parts), folder)
            path = feature_files.fetch(attempt, key, folder)
        if path is None:
            raise AssertionError("what was just kept is not there")
        paths.append(path)
    return Looked(paths)
