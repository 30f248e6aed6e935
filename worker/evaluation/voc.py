"""Average precision of Pascal VOC at IoU .5: the 11 points of 2007, and the whole curve of 2010 and later."""

from __future__ import annotations

import numpy as np

from worker.evaluation.matching import HIT, IGNORED, Matches


def average_precision(matches: Matches, label: int) -> tuple[float, float] | None:
    """A class's (11-point, all-point) AP; None when it has no object (VOC 2012 development kit, section 3.4.1).

    11-point: the mean over recall 0, .1, ... 1 of the largest precision at that recall or more; recalls are compared as
    whole numbers, so that 3 of 10 objects reach .3. All-point: the area under the precision made monotonous.
    """
    objects = int(matches.objects[label])
    if not objects:
        return None
    counted = matches.outcome[(matches.labels == label) & (matches.outcome != IGNORED)]
    hits = np.cumsum(counted == HIT)
    precision = hits / np.arange(1, len(hits) + 1)
    monotonous = np.maximum.accumulate(precision[::-1])[::-1]
    # hits grow by at most one, so the first place that reaches a recall has the largest precision from there on.
    eleven = 0.0
    for tenth in range(11):
        place = int(np.searchsorted(hits * 10, tenth * objects))
        eleven += float(monotonous[place]) if place < len(hits) else 0.0
    return eleven / 11, float(monotonous[counted == HIT].sum() / objects)
