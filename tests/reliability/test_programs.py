"""The programs that docs/reliability.md names are there, and tell their options."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.end_to_end.conftest import ROOT

PAGE = (ROOT / "docs" / "reliability.md").read_text()
PROGRAMS = sorted(set(re.findall(r"python -m (tests\.reliability\.\w+)", PAGE)))


def test_the_page_names_what_is_there() -> None:
    assert len(PROGRAMS) >= 5
    for program in PROGRAMS:
        assert (ROOT / f"{program.replace('.', '/')}.py").is_file(), program


def test_every_program_is_on_the_page() -> None:
    """A module here that runs by itself is a program."""
    folder = ROOT / "tests" / "reliability"
    runs = {f"tests.reliability.{path.stem}" for path in folder.glob("*.py") if "__main__" in path.read_text()}
    assert runs - {"tests.reliability.test_programs"} <= set(PROGRAMS)


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_help(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", program, "--help"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "usage: " in done.stdout.lower()
    assert "--help" in done.stdout
