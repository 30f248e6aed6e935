"""Every command in the documentation exists with its options, every curl asks what the API has, every link leads somewhere."""

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from app.cli.later import Later
from app.cli.main import build
from app.main import create_app
from app.settings import Settings
from scripts import reference
from tests.docs.snippets import NEEDS, PAGES, ROOT, blocks, without_comment

BLOCKS = [block for page in PAGES for block in blocks(page)]
COMMANDS = [(block.page, without_comment(line)) for block in BLOCKS for line in block.commands]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def words_of(command: str, program: str) -> list[str] | None:
    """Those behind the program, where the command calls it."""
    words = shlex.split(command)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    return words[1:] if words and words[0] == program else None


def of(program: str) -> list[Any]:
    return [
        pytest.param(words, id=f"{page.relative_to(ROOT)}: {command[:60]}")
        for page, command in COMMANDS
        if (words := words_of(command, program)) is not None
    ]


@pytest.fixture(scope="module")
def root() -> Any:
    return get_command(build())


@pytest.mark.parametrize("words", of("detrank"))
def test_a_command_is_there_with_its_options(root: Any, words: list[str]) -> None:
    command: Any = root
    while True:
        try:
            command.make_context(command.name, list(words), resilient_parsing=False)
        except typer.Exit:  # --help
            return
        except typer.BadParameter as wrong:
            if "does not exist" not in str(wrong):  # only files may be wanting
                raise
        if not hasattr(command, "commands"):
            return
        # options of the whole command stand before the name of the next
        name = next(word for word in words if not word.startswith("-"))
        words = words[words.index(name) + 1 :]
        command = command.commands[name]
        command = command.loaded() if isinstance(command, Later) else command


@pytest.fixture(scope="module")
def openapi(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return create_app(Settings(data_dir=tmp_path_factory.mktemp("home"))).openapi()


@pytest.mark.parametrize("words", of("curl"))
def test_a_request_is_one_of_the_api(openapi: dict[str, Any], words: list[str]) -> None:
    (address,) = [word for word in words if word.startswith("http://127.0.0.1:8000/")]
    path, _, query = address.removeprefix("http://127.0.0.1:8000").partition("?")
    body = json.loads(words[words.index("--json") + 1]) if "--json" in words else None
    method = "post" if {"--json", "--data-binary"} & set(words) else "get"
    if "-X" in words:
        method = words[words.index("-X") + 1].lower()
    fitting = [
        template
        for template in openapi["paths"]
        if re.fullmatch(re.sub(r"\\\{[^}]+\\\}", "[^/:]+", re.escape(template)), path)
    ]
    # one that ends in .csv is not the id of another
    operation = openapi["paths"][max(fitting, key=lambda one: len(one.replace("{id}", "")))][method]
    known = {one["name"] for one in operation.get("parameters", [])}
    assert {pair.partition("=")[0] for pair in query.split("&") if pair} <= known
    if body is not None:
        name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        schema = openapi["components"]["schemas"][name]
        assert set(schema.get("required", [])) <= set(body) <= set(schema["properties"])


@pytest.mark.parametrize("words", of("make"))
def test_a_target_is_in_the_makefile(words: list[str]) -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert phony is not None
    assert {word for word in words if "=" not in word} <= set(phony[1].split())


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "python"], ids=lambda b: b.page.name
)
def test_python_is_python(block: Any) -> None:
    compile(block.text, str(block.page), "exec")


def test_blocks_say_why_they_are_not_run() -> None:
    assert {block.needs for block in BLOCKS if block.needs} <= NEEDS
    assert len(COMMANDS) > 60


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if not link.startswith(("http://", "https://", "#")):
            assert (page.parent / link.partition("#")[0]).exists(), f"{page.name}: {link}"


def test_the_readme_is_short_and_leads_on() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").glob("**/*.md"):
        name = page.relative_to(ROOT / "docs").as_posix()
        if not name.startswith("studies/") and name != "README.md":
            assert f"({name})" in index, f"docs/README.md does not name {name}"


@pytest.mark.parametrize("name", reference.PAGES)
def test_pages_made_of_the_code_are_as_the_code_says(name: str) -> None:
    written = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert written == reference.PAGES[name](), f"docs/{name} is not as the code says: run `make reference`"


def test_the_release_script_is_a_script() -> None:
    for name in ("release", "build"):
        subprocess.run(["sh", "-n", ROOT / "scripts" / name], check=True)


def test_every_setting_says_what_it_is() -> None:
    assert not [name for name, field in Settings.model_fields.items() if not field.description]
