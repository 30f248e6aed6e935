"""Writes the reference pages that are made of the code: docs/settings.md, docs/cli.md and docs/errors.md.

`make reference`; a test holds that they are as the code says.
"""

from pathlib import Path
from typing import Any, get_args

import typer.main

from app.cli.later import Later
from app.cli.main import build
from app.explanations import TEXTS, explanation
from app.settings import Settings

DOCS = Path(__file__).parents[1] / "docs"
MADE = "<!-- made by `make reference` -->"

# read by the client and the command line before they know of any service
OF_CLIENTS = (
    (
        "DETRANK_URL",
        "the service to talk to; without it the one on this machine, which is started where none runs",
    ),
    ("DETRANK_API_KEY", "the key to show it"),
)


def settings() -> str:
    """docs/settings.md"""
    rows = []
    for name, field in Settings.model_fields.items():
        choices = [str(one) for one in get_args(field.annotation) if isinstance(one, str)]
        default = field.get_default(call_default_factory=True)
        said = [field.description or "", f"one of {', '.join(choices)}" if choices else ""]
        rows.append(
            f"| `DETRANK_{name.upper()}` | {_default(name, default)} | {_cell('; '.join(filter(None, said)))} |"
        )
    clients = [f"| `{name}` | | {says} |" for name, says in OF_CLIENTS]
    return "\n".join(
        [
            "# Settings",
            "",
            MADE,
            "",
            "Environment variables. The end of a name is its unit: `_s` seconds, `_bytes` bytes.",
            "",
            "## Of clients",
            "",
            "| variable | default | what it is |",
            "|---|---|---|",
            *clients,
            "",
            "## Of the service and its workers",
            "",
            "| variable | default | what it is |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def _default(name: str, value: Any) -> str:
    if value in ("", [], None):
        return "empty"
    if name.endswith("_bytes") and isinstance(value, int) and value >= 1 << 20:
        return f"{value:,} ({value / (1 << 30):g} GiB)" if value >= 1 << 30 else f"{value:,}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else f"{value}"


def errors() -> str:
    """docs/errors.md"""
    parts = [
        "# Errors",
        "",
        MADE,
        "",
        "Every refusal and every failure is a problem document (RFC 9457, `application/problem+json`): `title`, `status`, `detail` "
        "(what was found and what to change), `errors` (which field: `pointer` and `message`), `code`, `retryable`, `request_id`. Its "
        "`type` is an address of the service, `/problems/NAME`, that says what stands here. In Python it is the `problem` of a "
        "`detrank.ProblemError`.",
    ]
    for code in TEXTS:
        one = explanation(code)
        parts += ["", f"## {code}", "", f"{one.title} (HTTP status {one.status}). {one.happened}", ""]
        parts += [f"*Why.* {one.why}", "", f"*What to do.* {one.what_to_do}"]
    return "\n".join([*parts, ""])


def commands() -> str:
    """docs/cli.md"""
    root: Any = typer.main.get_command(build())
    parts = ["# The command line", "", MADE, "", root.help, "", *_options(root)]
    for name, later in root.commands.items():
        parts += _command(
            f"detrank {name}", later.loaded() if isinstance(later, Later) else later, later.help
        )
    return "\n".join([*parts, ""])


def _command(name: str, command: Any, help: str | None) -> list[str]:
    parts = ["", f"## {name}", "", _paragraph(help or command.help)]
    inner = getattr(command, "commands", None)
    if inner is None:
        return [*parts, "", *_usage(name, command), *_options(command)]
    for below, one in inner.items():
        parts += ["", f"### {name} {below}", "", _paragraph(one.help), "", *_usage(f"{name} {below}", one)]
        parts += _options(one)
    return parts


def _usage(name: str, command: Any) -> list[str]:
    words = []
    for one in command.params:
        if one.param_type_name == "argument":
            word = one.name.upper() + ("..." if one.nargs == -1 else "")
            words.append(word if one.required else f"[{word}]")
    return ["```text", " ".join([name, *words, "[OPTIONS]"]), "```"]


def _options(command: Any) -> list[str]:
    rows = []
    for one in command.params:
        if one.name == "help" or getattr(one, "hidden", False):
            continue
        argument = one.param_type_name == "argument"
        named = one.name.upper() if argument else ", ".join([*one.opts, *one.secondary_opts])
        needed = "needed" if one.required else ""
        rows.append(f"| `{named}` | {needed} | {_cell(getattr(one, 'help', None) or '')} |")
    return ["", "| option | | what it is |", "|---|---|---|", *rows] if rows else []


def _cell(text: str) -> str:
    return _paragraph(text).replace("|", "\\|")


def _paragraph(text: str | None) -> str:
    return " ".join((text or "").split())


PAGES = {"settings.md": settings, "cli.md": commands, "errors.md": errors}


def main() -> None:
    for name, made in PAGES.items():
        (DOCS / name).write_text(made(), encoding="utf-8")


if __name__ == "__main__":
    main()
