"""Bars for what takes a while: tqdm's in a notebook, rich's in a terminal, none where neither is there or nobody looks."""

import importlib.util
import sys
from typing import Any, Self


class Bars:
    """Bars by their key. This one shows nothing; it is also what a caller's own derives from."""

    def show(self, key: str, title: str, done: float, total: float | None, note: str = "") -> None:
        """The bar of this key as it is now. total: None where nobody knows."""

    def close(self) -> None:
        """Nothing more will come."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class NotebookBars(Bars):
    """tqdm.auto: widgets where the notebook has them, text otherwise."""

    def __init__(self) -> None:
        self._bars: dict[str, Any] = {}

    def show(self, key: str, title: str, done: float, total: float | None, note: str = "") -> None:
        if key not in self._bars:
            self._bars[key] = importlib.import_module("tqdm.auto").tqdm(desc=title, total=total, leave=False)
        bar = self._bars[key]
        bar.total = total
        bar.n = done
        bar.set_postfix_str(note, refresh=True)

    def close(self) -> None:
        for bar in self._bars.values():
            bar.close()
        self._bars.clear()


class TerminalBars(Bars):
    """rich, on standard error."""

    def __init__(self) -> None:
        console = importlib.import_module("rich.console").Console(stderr=True)
        module = importlib.import_module("rich.progress")
        self._progress = module.Progress(
            module.TextColumn("{task.description}", markup=False),
            module.BarColumn(),
            module.TextColumn("{task.fields[note]}", markup=False),
            module.TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._progress.start()
        self._tasks: dict[str, Any] = {}

    def show(self, key: str, title: str, done: float, total: float | None, note: str = "") -> None:
        if key not in self._tasks:
            self._tasks[key] = self._progress.add_task(title, total=total, note=note)
        self._progress.update(self._tasks[key], completed=done, total=total, note=note)

    def close(self) -> None:
        self._progress.stop()


def bars(wanted: bool) -> Bars:
    """Those that suit where this runs."""
    if wanted and "ipykernel" in sys.modules and importlib.util.find_spec("tqdm"):
        return NotebookBars()
    if wanted and sys.stderr.isatty() and importlib.util.find_spec("rich"):
        return TerminalBars()
    return Bars()
