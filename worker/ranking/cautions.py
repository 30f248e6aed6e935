"""When not to trust an order: said beside it, never hidden in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from worker.ranking.records import Candidate, Caution, Target

FEW_OBJECTS = 100
RARE_OBJECTS = 5

# Their value without any signal grows with the width of the features (METRICS, section 2), so they compare
# candidates of equal width only.
_WIDTH_BOUND = ("h_score", "transrate")
_LISTED = 10


def cautions(
    ranked: Sequence[Candidate],
    target: Target,
    place: tuple[str, str, str] | None,
    ties: Sequence[Sequence[str]],
    without_interval: Mapping[str, str],
) -> tuple[Caution, ...]:
    """Warnings about the target data, the score used and the order itself."""
    return (*_of_target(target), *_of_score(ranked, place), *_of_order(ranked, ties, without_interval))


def _of_target(target: Target) -> list[Caution]:
    found: list[Caution] = []
    present = {name: count for name, count in target.objects_by_category.items() if count}
    absent = [name for name, count in target.objects_by_category.items() if not count]
    rare = [name for name, count in present.items() if count < RARE_OBJECTS]
    if target.objects < FEW_OBJECTS:
        found.append(
            Caution(
                "few_objects",
                f"the scores stand on {target.objects} objects; below {FEW_OBJECTS} the order changes easily with the sample",
            )
        )
    if len(present) == 1:
        found.append(
            Caution(
                "single_class",
                f"all objects are of one category ({next(iter(present))}): scores over categories are undefined, "
                "and only where the boxes are can be scored",
            )
        )
    if rare:
        found.append(
            Caution("rare_classes", f"fewer than {RARE_OBJECTS} objects in the sample: {_list(rare)}")
        )
    if absent:
        found.append(
            Caution("absent_classes", f"no object in the sample: {_list(absent)}; scores do not cover them")
        )
    return found


def _of_score(ranked: Sequence[Candidate], place: tuple[str, str, str] | None) -> list[Caution]:
    if place is None:
        return []
    metric, layer, _ = place
    found: list[Caution] = []
    untrained = [candidate.name for candidate in ranked if layer in candidate.untrained]
    if untrained:
        found.append(
            Caution(
                "untrained_layer",
                f"at {layer} the weights of these candidates are untrained: {_list(untrained)}",
            )
        )
    if metric in _WIDTH_BOUND and len(ranked) > 1:
        found.append(
            Caution(
                "width_bound",
                f"{metric} grows with the number of channels even without any signal; it compares candidates of "
                "equal width only, and logme or h_score_regularized are safer",
            )
        )
    return found


def _of_order(
    ranked: Sequence[Candidate], ties: Sequence[Sequence[str]], without_interval: Mapping[str, str]
) -> list[Caution]:
    names = {candidate.id: candidate.name for candidate in ranked}
    found = [
        Caution("near_tie", f"cannot be told apart: {_list([names[key] for key in group])}") for group in ties
    ]
    if without_interval and len(ranked) > 1:
        who = [names[key] for key in without_interval]
        why = "; ".join(dict.fromkeys(without_interval.values()))
        found.append(
            Caution(
                "no_interval",
                f"whether these can be told apart is not known, for want of an interval ({why}): {_list(who)}",
            )
        )
    if len(ranked) == 1:
        found.append(
            Caution("one_candidate", "only one candidate has a place: there is nothing to compare it with")
        )
    return found


def _list(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
