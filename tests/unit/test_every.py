"""`tests/every.toml` names tests and cases that are there: a renamed one would be played again in every run, or in none."""

import tomllib

import pytest


def test_every_entry_fits_a_test_of_a_file_that_is_there(
    unmet_of_every: dict[str, set[str]], pytestconfig: pytest.Config
) -> None:
    tests = pytestconfig.rootpath / "tests"
    assert [
        file for file in tomllib.loads((tests / "every.toml").read_text()) if not (tests / file).is_file()
    ] == []
    assert {test: missing for test, missing in unmet_of_every.items() if missing} == {}
