"""`python -m outbound.pip ...`: pip, which connects to no private network but to its own index and those that its settings name."""

import ast
import runpy
import subprocess
import sys
from collections.abc import Iterator

from outbound.guard import public_only

REFUSED = 3
_NAMES = ("index-url", "extra-index-url", "find-links", "proxy")
# pip's own index, and where that keeps its files: nobody who calls can choose them, and a mirror may stand under their names
_DEFAULT = ("https://pypi.org", "https://files.pythonhosted.org")


def main() -> int:
    """pip's exit code; REFUSED, with the reason in the last line that begins with ERROR, where it was led astray."""
    with public_only(_indexes) as watch:
        try:
            runpy.run_module("pip", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        else:
            code = 0
    if watch.refused:
        sys.stderr.write(f"ERROR: {watch.refused[0]}\n")
        return REFUSED
    return code


def _indexes() -> Iterator[str]:
    """The index that pip has by itself, and URLs in the files and variables that it is configured by."""
    yield from _DEFAULT
    command = [sys.executable, "-m", "pip", "config", "list"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    for line in said.splitlines():
        name, _, value = line.partition("=")
        if name.endswith(_NAMES) and value:
            yield from (word for word in str(ast.literal_eval(value)).split() if "://" in word)


if __name__ == "__main__":
    sys.exit(main())
