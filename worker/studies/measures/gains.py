"""How gains are named beside the scores that they are of."""

from worker.studies.measures.observations import Place

_GAIN = "gain of "


def gain_of(metric: str) -> str:
    """The name of a metric's gain."""
    return f"{_GAIN}{metric}"


def raw_of(metric: str) -> str:
    """The metric of a gain; any other as it is."""
    return metric.removeprefix(_GAIN)


def is_gain(metric: str) -> bool:
    return metric.startswith(_GAIN)


def gain_place(place: Place) -> Place:
    """Where the gain of the score at `place` stands."""
    return gain_of(place[0]), *place[1:]
