"""Commands that compute on the spot, without a service. They join `detrank` through the entry point group
`detrank.commands`; the science loads inside a command, so that every other command stays fast."""

import typer

from worker.cli import datasets, score, study, weights


def commands(groups: dict[str, typer.Typer]) -> None:
    """Adds this package's commands to the groups of `detrank`."""
    groups["metrics"].command("score")(score.score)
    groups["checkpoints"].command("convert")(weights.convert)
    groups["checkpoints"].command("formats")(weights.formats)
    groups["checkpoints"].command("weights")(weights.weights)
    groups["datasets"].command("synth")(datasets.synth)
    groups["datasets"].command("bootstrap")(datasets.bootstrap)
    studies = groups.setdefault("study", typer.Typer(help=study.HELP, no_args_is_help=True))
    studies.command("synthetic")(study.synthetic)
    studies.command("local")(study.local)
