"""What every teacher gives, and how the service asks it: first a look at each picture, then boxes for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from worker.data.dataset import Dataset, Image
from worker.evaluation.prediction import Prediction
from worker.training.errors import Untrainable

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class PseudoBoxes:
    """What a teacher says of pictures.

    `found`: by image id a Prediction with `boxes` (n, 4) xyxy in pixels of the upright picture, `scores` (n,) in [0, 1] and
    `labels` (n,), indices into the dataset's categories from 0. A picture where nothing was found has n = 0; one that is
    missing was not looked at. `about`: plain JSON of what the teacher chose and measured on the way.
    """

    found: Mapping[int, Prediction]
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def boxes(self) -> int:
        """How many there are."""
        return sum(len(each.boxes) for each in self.found.values())


@dataclass(frozen=True)
class Watching:
    """How a teacher says where it is, and hears whether to stop.

    `progress(done, total, unit)`; `check()` raises where the work is to stop, and is called at least once a second;
    `log(sentence)`. `threads` decode pictures.
    """

    progress: Callable[[int, int, str], None] = lambda done, total, unit: None
    check: Callable[[], None] = lambda: None
    log: Callable[[str], None] = lambda sentence: None
    threads: int = 2


class Looking(Protocol):
    """What looks at pictures, each by itself. Made from what a request names; nothing is computed until it is asked."""

    @property
    def key(self) -> str:
        """A digest of all that `look` depends on but the picture: weights, size, settings, version of the code."""
        ...

    def look(
        self, images: Sequence[Image], watching: Watching
    ) -> Iterator[tuple[Image, dict[str, np.ndarray]]]:
        """Yield each image, in any order, with the arrays that are needed of it later.

        Asked for parts of the pictures, perhaps in several processes; what it gives is kept by digest and computed once.
        Raises BadPicture at a picture that cannot be decoded.
        """
        ...


class Teacher(Looking, Protocol):
    """What says where objects are."""

    def say(self, dataset: Dataset, looked: Mapping[int, Arrays], watching: Watching) -> PseudoBoxes:
        """Boxes for the pictures of `looked`, which reads a picture's arrays from disk when it is asked for them.

        May learn on the way, from the annotations that the dataset has. Raises Unteachable.
        """
        ...


class Unteachable(Untrainable):
    """No pseudo boxes can be had as asked: `detail` says what to change, `code` is for programs."""
