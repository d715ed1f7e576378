"""Options that several commands have."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner, Result

from model_store.command_line.options import json_option, print_json, store_option


@click.command()
@store_option("embedded")
@json_option
def command(store: str, as_json: bool) -> None:
    if as_json:
        print_json({"store": store})


def run(*words: str, variable: str | None = None) -> Result:
    return CliRunner().invoke(command, words, env={"RESNET_MODEL_STORE": variable})


@pytest.mark.parametrize(
    ("words", "variable", "store"),
    [
        ([], None, "embedded"),
        ([], "models", "models"),
        (["--store", "s3://bucket/ö"], "models", "s3://bucket/ö"),
    ],
)
def test_a_store(words: list[str], variable: str | None, store: str) -> None:
    done = run(*words, "--json", variable=variable)
    assert json.loads(done.stdout) == {"store": store}


@pytest.mark.parametrize("given", ["s3://user:secret@bucket", "s3://", "https://host/models?key=1"])
def test_a_place_where_no_store_can_be(given: str) -> None:
    for done in (run("--store", given), run(variable=given)):
        assert done.exit_code == 2
        assert "'--store'" in done.stderr
        assert "secret" not in done.stderr
