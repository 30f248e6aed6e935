"""What the evidence says in words: every sentence is made of the numbers, and says so where there is none."""

from __future__ import annotations

from worker.studies.evidence.evidence import CHOSEN, STRICT, TARGET, Evidence, Priced, short
from worker.studies.measures.lines import Line, Share
from worker.studies.reports.report import figures


def answer(found: Evidence) -> list[str]:
    """Five sentences: the choice, its proof, the untrained ones, what stands beside it, and the cheapest signal that does."""
    return [_choice(found), _proof(found), _untrained(found), _beside(found), _cheapest(found)]


def _choice(found: Evidence) -> str:
    choice, on = found.choice, ", ".join(found.choice.on)
    if choice.place is None:
        return f"None of the {choice.considered} scores has a value for every candidate on {on}, so none could be chosen."
    return (
        f"Of {choice.considered} scores, {len(choice.fitting)} have a value for every candidate on {on}; the highest mean weighted tau there, "
        f"{choice.tau:.2f}, has {short(choice.place)}."
    )


def _proof(found: Evidence) -> str:
    line = found.line(CHOSEN)
    if line is None:
        return "There is nothing to prove."
    if line.mean.value is None:
        return "It has a value on none of the other datasets."
    on = f"On the other {len(found.material.proof)} datasets its mean is {figures(line.mean)}"
    if line.share is None:
        why = (
            "no seed orders the candidates as another does"
            if found.ceiling
            else "with one seed of fine-tuning there is no noise ceiling to hold it against"
        )
        return f"{on}; {why}."
    reached = "reaches" if line.share.value >= TARGET else "misses"
    return (
        f"{on}, which is {_share(line.share)} of the noise ceiling and {reached} the {TARGET:.0%} asked for."
    )


def _untrained(found: Evidence) -> str:
    if not found.material.question.untrained:
        return "No untrained candidate stands among the others, so it is not known where one would be put."
    n = len(found.material.proof)
    truth = f"by mAP they are last on {found.truth_last}"
    line, strict = found.line(CHOSEN), found.line(STRICT)
    said = (
        ""
        if line is None
        else f"It puts the untrained candidates last on {line.last} of these {n} datasets ({truth}); "
    )
    if strict is None or strict.place is None:
        return f"{said}no score puts them last on all datasets of the choice."
    if line is not None and strict.place == line.place:
        return f"{said}it is also the best of the {len(found.strict.fitting)} that do so on all datasets of the choice."
    return f"{said}the best that does so on all datasets of the choice, {short(strict.place)}, has {figures(strict.mean)} on the others and puts them last on {strict.last}."


def _beside(found: Evidence) -> str:
    line = found.line(CHOSEN)
    static, published = _strongest(found, "baseline"), _strongest(found, "published")
    default = found.line("default")
    said = []
    if line is not None and line.above[1]:
        said.append(f"it is above the best static order on {line.above[0]} of {line.above[1]} datasets")
    if static is not None:
        said.append(
            f"the strongest static order, {static.name.removeprefix('static: ')}, has {figures(static.mean)}"
        )
    if published is not None:
        said.append(
            f"the strongest published score, {published.name.removeprefix('published: ')}, has {figures(published.mean)}"
        )
    if default is not None and default.mean.value is not None:
        said.append(f"the service's default rule has {figures(default.mean)}")
    return f"Beside it: {'; '.join(said)}." if said else "Nothing stands beside it."


def _strongest(found: Evidence, kind: str) -> Line | None:
    """The line of a kind with the highest mean tau."""
    known = [(v, line) for line in found.lines if line.kind == kind and (v := line.mean.value) is not None]
    return max(known, key=lambda each: each[0])[1] if known else None


def _cheapest(found: Evidence) -> str:
    left = found.left_out_mean
    said = (
        ""
        if left.value is None
        else f"Chosen on all datasets but one and looked at on that one, the mean is {figures(left)}; "
    )
    if not found.ceiling:
        return f"{said}what the cheapest signal at {TARGET:.0%} of the ceiling is cannot be said without a ceiling."
    able = [
        (p, of_ceiling.value)
        for p in found.priced
        if p.line.kind != "ceiling"
        and (of_ceiling := p.line.share) is not None
        and of_ceiling.n == len(found.material.proof)
    ]
    reach = [
        (seconds, share, p.line.name)
        for p, share in able
        if share >= TARGET and (seconds := p.seconds) is not None
    ]
    if not reach:
        return f"{said}none of {len(able)} signals short of a whole fine-tuning that have a value on every other dataset reaches {TARGET:.0%} of the ceiling{_closest(able)}."
    seconds, share, name = min(reach, key=lambda each: (each[0], -each[1]))
    return (
        f"{said}of {len(able)} signals short of a whole fine-tuning that have a value on every other dataset {len(reach)} reach {TARGET:.0%} of the ceiling, the "
        f"cheapest being {name} with {share:.0%} at {seconds:.1f} seconds a candidate."
    )


def _closest(able: list[tuple[Priced, float]]) -> str:
    """Of signals with their shares of the ceiling."""
    if not able:
        return ""
    best, share = max(able, key=lambda each: each[1])
    seconds = "" if best.seconds is None else f" at {best.seconds:.1f} seconds a candidate"
    return f"; the closest is {best.line.name} with {share:.0%}{seconds}"


def raw_or_gain(found: Evidence) -> str:
    """Which of the two orders better, counted over metrics."""
    known = [
        (r, g)
        for raw, gain in found.gains.values()
        if (r := raw.mean.value) is not None and (g := gain.mean.value) is not None
    ]
    if not known:
        return "No metric has both a raw score and a gain there."
    better, worse = sum(g > r for r, g in known), sum(g < r for r, g in known)
    difference = sum(g - r for r, g in known) / len(known)
    return (
        f"The gain has the higher mean tau for {better} of {len(known)} metrics, the raw score for {worse}; over the metrics the gain's is "
        f"{abs(difference):.2f} {'higher' if difference >= 0 else 'lower'} on average."
    )


def cautions(found: Evidence) -> list[str]:
    """How little it stands on, in numbers."""
    material = found.material
    counts = [sum(o.dataset == d for o in material.observations) for d in material.datasets]
    few = min(counts) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    said = [
        f"{len(material.datasets)} datasets, {few} candidates of {material.architectures} architectures on each, "
        f"{len(material.real.settings.seeds)} seed{'s' if len(material.real.settings.seeds) > 1 else ''}: intervals over "
        f"{len(material.proof)} datasets are rough, and candidates that share an architecture or a source are no independent draws.",
        f"The truth is that of one budget ({', '.join(f'{k} {v}' for k, v in material.real.settings.overrides.items()) or material.real.settings.recipe}); "
        "another budget or size may order the candidates otherwise.",
    ]
    if luck := found.luck:
        said.append(
            f"The choice is the best of {luck.scores} scores. Were mAP dealt out at random, the best of as many would reach {luck.median:.2f} half of the time and {luck.high:.2f} once in twenty on the datasets of the choice; "
            f"the best here has {luck.best:.2f}, reached in {luck.share:.0%} of deals."
        )
    if found.ceiling:
        said.append(
            "Which signal is the cheapest that reaches the target was found by looking at the datasets of the proof, so it is a lead and not proven."
        )
    if lost := material.real.left_out():
        said.append(f"{len(lost)} pairs of candidate and dataset are left out; the last table names them.")
    if material.real.probes:
        if len({m.architecture for m in material.real.manifests.values()}) > 1:
            said.append(
                "Detectors of different kinds have different losses, so probe_loss compares like with like only among those of one kind."
            )
        said.append(
            "probe_map looks at the test images that the truth is measured on, which nobody has who chooses; probe_val_map does not."
        )
    return said


def _share(share: Share) -> str:
    limits = "" if share.low is None else f" [{share.low:.0%}, {share.high:.0%}]"
    return f"{share.value:.0%}{limits}"
