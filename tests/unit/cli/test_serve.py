"""Who may reach the service."""

import socket

import pytest
from typer.testing import CliRunner

from app.cli.main import build
from app.embedded.serve import Refused, _listener, address, is_loopback, refuse_open_door
from app.settings import Settings


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("", False),
        ("localhost.example.org", False),
    ],
)
def test_only_this_machine_itself_needs_no_keys(host: str, inside: bool) -> None:
    assert is_loopback(host) is inside
    refuse_open_door(host, Settings(auth="keys"))
    if inside:
        refuse_open_door(host, Settings(auth="none"))
    else:
        with pytest.raises(Refused, match=r"DETRANK_AUTH=keys.*detrank keys create"):
            refuse_open_door(host, Settings(auth="none"))


def test_the_command_refuses_before_it_makes_anything(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DETRANK_AUTH", raising=False)
    monkeypatch.setenv("DETRANK_DATA_DIR", str(tmp_path / "data"))
    result = CliRunner().invoke(build(), ["--data-dir", str(tmp_path / "data"), "serve", "--host", "0.0.0.0"])
    assert result.exit_code == 2
    assert "DETRANK_AUTH=keys" in result.output
    assert not (tmp_path / "data").exists()


def test_a_taken_port_is_said_to_be_taken() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(Refused, match="choose another --host or --port"),
    ):
        _listener("127.0.0.1", taken.getsockname()[1])


def test_addresses_can_be_opened() -> None:
    assert address("127.0.0.1", 8000) == "http://127.0.0.1:8000"
    assert address("::1", 8000) == "http://[::1]:8000"
