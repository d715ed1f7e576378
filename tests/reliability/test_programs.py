"""The programs that docs/reliability.md names, and those of tests/security, are there and are used in the same way."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import click
import pytest

from tests.end_to_end.conftest import ROOT

PAGE = (ROOT / "docs" / "reliability.md").read_text()
ON_PAGE = sorted(set(re.findall(r"python -m (tests\.reliability\.\w+)", PAGE)))
PROGRAMS = [*ON_PAGE, "tests.security.costly_images", "tests.security.grpc_fuzz", "tests.security.http_fuzz"]


def test_the_page_names_what_is_there() -> None:
    assert len(ON_PAGE) >= 5
    for program in ON_PAGE:
        assert (ROOT / f"{program.replace('.', '/')}.py").is_file(), program


def test_every_program_is_on_the_page() -> None:
    """A module here that runs by itself is a program."""
    folder = ROOT / "tests" / "reliability"
    runs = {f"tests.reliability.{path.stem}" for path in folder.glob("*.py") if "__main__" in path.read_text()}
    assert runs - {"tests.reliability.test_programs"} <= set(ON_PAGE)


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_has_the_same_options_and_shows_an_example(program: str) -> None:
    main = importlib.import_module(program).main
    assert isinstance(main, click.Command)
    options = {name: option for option in main.params for name in option.opts}
    assert isinstance(options["--json"].type, click.Path)
    assert options["--set"].multiple
    with click.Context(main) as context:
        assert re.search(rf"^ +python -m {re.escape(program)}\b", main.get_help(context), re.MULTILINE)


def test_a_wrong_setting_is_told_before_anything_is_started() -> None:
    main = importlib.import_module("tests.reliability.soak").main
    with pytest.raises(click.BadParameter, match="write RESNET_NAME=VALUE"):
        main.make_context("soak", ["--set", "SLOTS=1"])


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_help(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", program, "--help"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert f"Usage: python -m {program} " in done.stdout
    assert "--help" in done.stdout
