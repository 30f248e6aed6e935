"""docker-compose.yml and Dockerfile as data: what an engine would run, for a machine that has none."""

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
_NAME = re.compile(r"\$\{(\w+)(?::([-?]))?")


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """`${NAME}`, `${NAME:-otherwise}` and `${NAME:?what to do}`, nested, as Compose has them. Raises KeyError with the last."""
    out, at = "", 0
    while found := _NAME.search(text, at):
        out += text[at : found.start()]
        end, depth = found.end(), 1
        while depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        rest, value = text[found.end() : end - 1], variables.get(found[1], "")
        if not value and found[2] == "?":
            raise KeyError(rest)
        out += value or (interpolated(rest, variables) if found[2] == "-" else "")
        at = end
    return out + text[at:]


def services(variables: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Every service, with its variables filled in."""

    def filled(value: Any) -> Any:
        if isinstance(value, str):
            return interpolated(value, variables)
        if isinstance(value, dict):
            return {name: filled(each) for name, each in value.items()}
        return [filled(each) for each in value] if isinstance(value, list) else value

    return filled(yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"])


def in_order(found: Mapping[str, dict[str, Any]], profiles: set[str]) -> list[str]:
    """The services of the profiles in the order in which they start: each after those that it depends on."""
    started: list[str] = []

    def start(name: str) -> None:
        for other in found[name].get("depends_on", {}):
            start(other)
        if name not in started:
            started.append(name)

    for name, service in found.items():
        if set(service.get("profiles", [])) <= profiles or profiles & set(service.get("profiles", [])):
            start(name)
    return started


def instructions() -> list[tuple[str, str]]:
    """(instruction, rest) of every line of the Dockerfile."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split()[0], line.split(None, 1)[1]) for line in lines]


def words(rest: str) -> list[str]:
    """The words of an instruction, written as JSON or as a shell would read them."""
    return json.loads(rest) if rest.startswith("[") else shlex.split(rest)
