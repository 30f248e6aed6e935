"""The `detrank` command: builds on the Python client, starts the service where none runs.

Commands that compute on the spot belong to the worker and join through the entry point group
`detrank.commands`, so that this package never imports the science.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.later import Later
from app.cli.session import Commands, Where, use_data_dir

HELP = """Which pretrained detector should I fine-tune on this dataset?

Commands talk to the service at DETRANK_URL; without it to the one that runs on the data folder, and where
none runs they start one for as long as they last."""

# In the order of `detrank --help`: where a command or group is, and what it is for.
COMMANDS = {
    "serve": (
        "processes:serve",
        "Run the service. Without any server configured: SQLite, a local folder and workers, all of it here.",
    ),
    "worker": ("worker:worker", "Run a worker on the configured deployment."),
    "workers": (
        "workers:workers",
        "Worker processes: their queues, device, memory, and the detectors they keep loaded.",
    ),
    "doctor": (
        "doctor:doctor",
        "Look at every part of the configured deployment and say what to change. Exit code 1 where something is broken.",
    ),
    "migrate": ("processes:migrate", "Bring the configured database to this version."),
    "tidy": (
        "tidy:tidy",
        "Remove what has expired and what nothing refers to, as workers do every 15 minutes; --dry-run only says what.",
    ),
    "demo": (
        "demo:demo",
        "Rank real checkpoints on real data with a service of its own; a table, and files to look at.",
    ),
    "rank": ("rankings:rank", "Order candidates by how well they should fine-tune on a dataset."),
    "verify": (
        "verifications:verify",
        "Fine-tune a checkpoint on a dataset, to know its mAP and to have its weights.",
    ),
    "search": (
        "searches:search",
        "Find the best checkpoint that a budget can find: score all, fine-tune many a little and "
        "few to the end, or each time what is expected to help most.",
    ),
    "pretrain": (
        "pretrainings:pretrain",
        "Have a detector learn from pictures without labels, and see whether it was worth it.",
    ),
    "pseudo-label": (
        "pseudo_labellings:pseudo_label",
        "Have a teacher say where objects are: a dataset with pseudo boxes, to rank and train on.",
    ),
    "datasets": ("datasets:group", "Labelled images to choose a detector for."),
    "checkpoints": ("checkpoints:group", "Pretrained weights: the candidates."),
    "rankings": ("rankings:group", "Orders of candidates for a dataset."),
    "verifications": ("verifications:group", "Fine-tuned candidates: what their mAP is."),
    "searches": ("searches:group", "Budgets spent on finding the best checkpoint."),
    "study": (
        "studies:study",
        "Which metric deserves trust: candidates on datasets, ranked and fine-tuned, with the correlations.",
    ),
    "studies": ("studies:group", "Studies of the service: which metric deserved trust."),
    "pretrainings": ("pretrainings:group", "Detectors pretrained on pictures without labels."),
    "pseudo-labellings": (
        "pseudo_labellings:group",
        "What teachers said of pictures without boxes, and what that is worth.",
    ),
    "jobs": ("jobs:group", "Units of work: what runs, what waits, what failed."),
    "metrics": ("metrics:group", "Scores that predict how well a checkpoint will fine-tune."),
    "webhooks": ("webhooks:group", "Addresses that are told when something ends."),
    "workspaces": ("workspaces:group", "What a workspace stores and has queued, and what it may."),
    "audit": ("audit:audit", "Who changed what, newest first: for whoever runs the service."),
    "keys": ("keys:group", "API keys of the configured database (DETRANK_AUTH=keys asks for them)."),
}


class Root(Commands):
    """The whole command."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        for name, (place, help) in COMMANDS.items():
            self.commands[name] = Later(name, f"app.cli.commands.{place}", help)


def build() -> typer.Typer:
    """The whole command, with the groups of every installed package."""
    root = typer.Typer(
        name="detrank",
        help=HELP,
        cls=Root,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    root.callback()(_options)
    return root


def _options(
    ctx: typer.Context,
    url: Annotated[str | None, typer.Option(envvar="DETRANK_URL", help="the service to talk to")] = None,
    key: Annotated[
        str | None, typer.Option(envvar="DETRANK_API_KEY", help="its API key", show_envvar=True)
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(envvar="DETRANK_DATA_DIR", help="folder of the embedded service; default ~/.detrank"),
    ] = None,
) -> None:
    use_data_dir(data_dir)
    ctx.obj = Where(url or None, key or None)


def main() -> None:
    build()()
