"""`detrank doctor`: whether the configured deployment works, part by part, and what to change."""

import json
import subprocess
import sys
from importlib.util import find_spec
from typing import Annotated, Any

import typer
from rich.table import Table

from app.cli.session import Failed, out
from app.db.engine import Database
from app.errors import Unavailable
from app.services.health import OK, Health
from app.settings import Settings, get_settings
from app.storage.blobs import open_store

DEVICE_S = 300
# the setting that says where a part is
NAMED_BY = {
    "database": "DETRANK_DATABASE_URL",
    "broker": "DETRANK_BROKER_URL",
    "storage": "DETRANK_STORAGE_URL",
    "disk": "DETRANK_DATA_DIR",
}


def doctor(
    device: Annotated[bool, typer.Option("--device/--no-device", help="also compute a little on it")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="as JSON")] = False,
) -> None:
    """Look at every part of the configured deployment and say what to change. Exit code 1 where something is broken."""
    settings = get_settings()
    checks = _parts(settings)
    about = _device(settings) if device else None
    if about is not None:
        checks["device"] = "; ".join(about["wrong"]) or OK
    if as_json:
        typer.echo(json.dumps({"checks": checks, "device": about}))
    else:
        _show(checks, about)
    # a service that waits for its first worker is none that is broken
    if broken := [name for name, said in checks.items() if said != OK and name != "workers"]:
        raise Failed(f"{', '.join(broken)}: see above")


def _parts(settings: Settings) -> dict[str, str]:
    try:
        for folder in (settings.home, settings.cache_dir, settings.scratch_dir):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        # nothing else can be looked at without it
        return {
            "disk": f"{settings.home} cannot be made or written to ({failure.strerror}): {NAMED_BY['disk']}"
        }
    database = Database(settings.resolved_database_url)
    health = Health(settings, database, _store(settings), in_full=True)
    try:
        return {name: _with_setting(name, said) for name, said in health.looks().checks.items()}
    finally:
        health.close()
        database.dispose()


def _store(settings: Settings) -> Any:
    """The store, or something that says at each look why there is none."""
    try:
        return open_store(settings)
    except Exception as failure:  # each file system has errors of its own
        return _NoStore(f"{type(failure).__name__}: {failure}")


class _NoStore:
    def __init__(self, why: str) -> None:
        self._why = why

    def look(self) -> None:
        raise Unavailable(self._why)


def _with_setting(name: str, said: str) -> str:
    setting = NAMED_BY.get(name)
    return said if said == OK or setting is None or setting in said else f"{said} ({setting})"


def _device(settings: Settings) -> dict[str, Any]:
    if find_spec("worker") is None or find_spec("torch") is None:
        return {"wrong": ["torch is not installed here: workers of other hosts compute"]}
    command = [sys.executable, "-P", "-m", "worker.device_check", settings.device]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEVICE_S, check=False)
    except subprocess.TimeoutExpired:
        return {"wrong": [f"a batch and a training step were not through after {DEVICE_S} s"]}
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        return {"wrong": [f"computing ended with exit code {done.returncode}: {last[0]}"]}
    return found


def _show(checks: dict[str, str], about: dict[str, Any] | None) -> None:
    table = Table("part", "", show_header=False)
    for name, said in checks.items():
        table.add_row(name, f"[green]{said}[/]" if said == OK else f"[red]{said}[/]")
    out.print(table)
    if about and "images_per_second" in about:
        out.print(
            f"{about.get('name', about['device'])}, torch {about['torch']}: {', '.join(about['precisions'])}; "
            f"{about['images_per_second']:g} images a second, {about['step_seconds']:g} s for a training step of 4 "
            "(a small two-stage detector at 320 pixels)"
        )
