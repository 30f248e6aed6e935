"""Commands that compute on the spot, without a service. They join `detrank` through the entry point group
`detrank.commands`."""

import typer

from app.cli.later import computed
from worker.cli import options

# By group and word: the options, and where the function is that gets them.
COMMANDS: dict[str, dict[str, tuple[type, str]]] = {
    "metrics": {"score": (options.ScoreOptions, "worker.cli.score:run")},
    "checkpoints": {
        "convert": (options.ConvertOptions, "worker.cli.convert:run"),
        "formats": (options.FormatsOptions, "worker.cli.formats:run"),
        "weights": (options.WeightsOptions, "worker.cli.weights:run"),
    },
    "datasets": {
        "synth": (options.SynthOptions, "worker.cli.synth:run"),
        "bootstrap": (options.BootstrapOptions, "worker.cli.bootstrap:run"),
    },
    "study": {
        "synthetic": (options.SyntheticOptions, "worker.cli.synthetic:run"),
        "local": (options.LocalOptions, "worker.cli.local:run"),
    },
}


def commands(groups: dict[str, typer.Typer]) -> None:
    """Adds this package's commands to those groups of `detrank` that are given, by name."""
    for name, group in groups.items():
        for word, (kind, place) in COMMANDS.get(name, {}).items():
            group.command(word, help=kind.__doc__)(computed(kind, place))
