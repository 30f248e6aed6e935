"""When not to trust an order: said beside it, never hidden in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from worker.ranking.records import Candidate, Caution, Scored, Target

FEW_OBJECTS = 100
RARE_OBJECTS = 5

# Their value without any signal grows with the width of the features (METRICS, section 2), so they compare
# candidates of equal width only.
_WIDTH_BOUND = ("h_score", "transrate")
_LISTED = 10


def cautions(
    valued: Sequence[tuple[Candidate, Scored]],
    target: Target,
    place: tuple[str, str, str] | None,
    ties: Sequence[Sequence[str]],
    without_interval: Mapping[str, str],
    *,
    raw_by_default: bool = False,
    unmatched: bool = False,
) -> tuple[Caution, ...]:
    """Warnings about the target data, the score used, the candidates' weights and the order itself.

    valued: those that have a place, each with the score that orders them. raw_by_default: by its value, since not everyone has a
    gain. unmatched: the layer was to fit the size of the objects, and none could be matched.
    """
    ranked = [candidate for candidate, _ in valued]
    return (
        *_of_target(target),
        *_of_score(ranked, place, unmatched),
        *(_of_gains(valued) if raw_by_default else ()),
        *_of_weights(valued),
        *_of_files(ranked),
        *_of_order(ranked, ties, without_interval),
    )


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
                f"all objects are of one category ({next(iter(present))}): scores over categories are undefined; "
                "where the boxes are, and regions with background, can be scored",
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


def _of_score(
    ranked: Sequence[Candidate], place: tuple[str, str, str] | None, unmatched: bool
) -> list[Caution]:
    if place is None:
        return []
    metric, layer, _ = place
    found: list[Caution] = []
    if unmatched:
        found.append(
            Caution(
                "not_size_matched",
                "no backbone map could be matched to the size of the objects: there is none with trained weights and a value "
                f"in every candidate, or no size is known; {layer} was chosen by the default rule",
            )
        )
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


def why_no_gain(scored: Scored) -> str:
    """Of a score without a gain, from its notes."""
    begin = "no zero point: "
    return next(
        (note.removeprefix(begin) for note in scored.notes if note.startswith(begin)), "it has no zero point"
    )


def _of_gains(valued: Sequence[tuple[Candidate, Scored]]) -> list[Caution]:
    """Who keeps the others from being ordered by their gains."""
    without = [(candidate.name, scored) for candidate, scored in valued if scored.gain is None]
    if not without or len(without) == len(valued):
        return []
    why = "; ".join(dict.fromkeys(why_no_gain(scored) for _, scored in without))
    return [
        Caution(
            "no_gain",
            f"values order the candidates, not what their weights bring, since {_list([name for name, _ in without])} "
            f"{_verb(without, 'has', 'have')} no gain ({why}): values of different architectures compare less well. Leave "
            f"{_verb(without, 'it', 'them')} out, or rank by the quantity gain",
        )
    ]


def _of_files(ranked: Sequence[Candidate]) -> list[Caution]:
    """What a candidate's file left open when it was read: wrong there, its scores are wrong too."""
    return [
        Caution("unread_fact", f"{candidate.name}: {warning}")
        for candidate in ranked
        for warning in candidate.unread
    ]


def _of_weights(valued: Sequence[tuple[Candidate, Scored]]) -> list[Caution]:
    """Whose weights do no better than those that their architecture begins with."""
    beaten: dict[str, list[str]] = defaultdict(list)
    unclear: dict[str, list[str]] = defaultdict(list)
    for candidate, scored in valued:
        if scored.gain is None:
            continue
        who = candidate.architecture or "network of the same architecture"
        if scored.gain <= 0:
            beaten[who].append(candidate.name)
        elif scored.gain_interval and scored.gain_interval.low <= 0:
            unclear[who].append(candidate.name)
    metric = valued[0][1].metric if valued else ""
    return [
        *(
            Caution(
                "brings_nothing",
                f"{_list(names)} {_verb(names, 'does', 'do')} not beat the untrained {who}: {_verb(names, 'its', 'their')} "
                f"weights bring nothing to this dataset by {metric}",
            )
            for who, names in beaten.items()
        ),
        *(
            Caution(
                "brings_nothing",
                f"{_list(names)} cannot be told from the untrained {who}: whether {_verb(names, 'its', 'their')} weights bring "
                f"anything to this dataset is not known by {metric}",
            )
            for who, names in unclear.items()
        ),
    ]


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


def _verb(names: Sequence[object], of_one: str, of_many: str) -> str:
    return of_one if len(names) == 1 else of_many


def _list(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
