"""The `detrank` command: builds on the Python client, starts the service where none runs.

Commands that compute on the spot belong to the worker and join through the entry point group `detrank.commands`:
each entry is called with the groups of commands by name, so that this package never imports the science.
"""

from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer

from app.cli import checkpoints, datasets, jobs, keys, metrics, rank, search, study, verify
from app.cli.demo import demo
from app.cli.processes import migrate, serve, worker
from app.cli.session import Commands, Where, use_data_dir
from app.cli.workers import workers

HELP = """Which pretrained detector should I fine-tune on this dataset?

Commands talk to the service at DETRANK_URL; without it to the one that runs on the data folder, and where none runs
they start one for as long as they last."""


def build() -> typer.Typer:
    """The whole command, with the groups of every installed package."""
    root = typer.Typer(
        name="detrank", help=HELP, cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
    )
    root.callback()(_options)
    for command in (serve, worker, workers, migrate, demo, rank.rank, verify.verify, search.search):
        root.command()(command)
    groups = {
        "datasets": datasets.commands,
        "checkpoints": checkpoints.commands,
        "rankings": rank.commands,
        "verifications": verify.commands,
        "searches": search.commands,
        "study": study.group,
        "studies": study.commands,
        "jobs": jobs.commands,
        "metrics": metrics.commands,
        "keys": keys.commands,
    }
    for entry in entry_points(group="detrank.commands"):
        entry.load()(groups)
    for name, group in groups.items():
        root.add_typer(group, name=name)
    return root


def _options(
    ctx: typer.Context,
    url: Annotated[str | None, typer.Option(envvar="DETRANK_URL", help="the service to talk to")] = None,
    key: Annotated[str | None, typer.Option(envvar="DETRANK_API_KEY", help="its API key", show_envvar=True)] = None,
    data_dir: Annotated[Path | None, typer.Option(envvar="DETRANK_DATA_DIR", help="folder of the embedded service; default ~/.detrank")] = None,
) -> None:
    use_data_dir(data_dir)
    ctx.obj = Where(url or None, key or None)


def main() -> None:
    build()()
