"""What all commands of a program share, on commands that do nothing else."""

from __future__ import annotations

import errno
import signal

import click
import pytest
from click.testing import CliRunner, Result

from model_store.command_line.program import STATUSES, Interrupted, Program, suggestion, when_interrupted
from model_store.errors import Explained

LAZY = {"error": f"{__name__}:error", "json": "json:no_such_thing", "heavy": "a_package_that_nobody_has.part:command"}


@click.command("error")
@click.argument("kind")
@click.option("--number", type=int)
def error(kind: str, number: int | None) -> int | None:
    """Does what it is asked."""
    if kind == "explained":
        raise Explained("the box is empty:\n  fill it")
    if kind == "os":
        raise OSError(errno.ENOSPC, "No space left on device", "box")
    if kind == "usage":
        raise click.UsageError("either, not both")
    if kind == "bug":
        raise KeyError("box")
    if kind == "status":
        return 1
    if kind in ("SIGINT", "SIGTERM"):
        with when_interrupted("the box is closed"):
            signal.raise_signal(signal.Signals[kind])
    if kind == "early":
        signal.raise_signal(signal.SIGTERM)
    return None


@click.group(
    cls=Program, lazy=LAZY, program="python -m box", install="pip install box", interrupted="nothing was put in"
)
def program() -> None:
    """A box."""


@program.command()
def own() -> None:
    """Not lazy."""


def run(*words: str) -> Result:
    return CliRunner().invoke(program, words)


@pytest.mark.parametrize(
    ("words", "status", "line"),
    [
        (["error", "explained"], 2, "error: the box is empty: fill it"),
        (["error", "os"], 2, "error: [Errno 28] No space left on device: 'box'"),
        (["error", "usage"], 2, "error: either, not both (python -m box error -h says more)"),
        (["error"], 2, "error: Missing argument 'KIND'. (python -m box error -h says more)"),
        (["eror", "os"], 2, "error: there is no command 'eror'; did you mean error? (python -m box -h says more)"),
        (
            ["xyz"],
            2,
            "error: there is no command 'xyz'; there are error, json, heavy, own (python -m box -h says more)",
        ),
        (["heavy"], 2, "error: heavy needs the package a_package_that_nobody_has: pip install box"),
        (["heavy", "--help"], 2, "error: heavy needs the package a_package_that_nobody_has: pip install box"),
        (["error", "SIGINT"], 130, "error: interrupted; the box is closed"),
        (["error", "SIGTERM"], 130, "error: interrupted; the box is closed"),
        (["error", "early"], 130, "error: interrupted; nothing was put in"),
    ],
)
def test_an_error_is_one_line_and_a_status(words: list[str], status: int, line: str) -> None:
    done = run(*words)
    assert (done.exit_code, done.stdout) == (status, "")
    assert done.stderr.strip() == line


def test_statuses_of_commands_are_the_programs() -> None:
    assert [run("error", kind).exit_code for kind in ("nothing", "status")] == [0, 1]


def test_a_fault_of_the_code_is_not_hidden() -> None:
    assert isinstance(run("error", "bug").exception, KeyError)


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_help(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(LAZY, "json")
    done = run(*words)
    assert done.exit_code == 0
    assert " ".join(STATUSES.split()) in " ".join(done.stdout.split())
    for told in ("error  Does what it is asked.", "own    Not lazy.", "heavy  heavy needs the package"):
        assert told in done.stdout


def test_nothing_is_imported_for_another_command() -> None:
    """``json`` lacks what its entry names, which only shows where it is asked for."""
    assert run("own").exit_code == 0
    assert isinstance(run("json").exception, AttributeError)


def test_only_interrupts_are_interruptions() -> None:
    with pytest.raises(ValueError, match="other"), when_interrupted("unused"):
        raise ValueError("other")
    with pytest.raises(Interrupted, match="half"), when_interrupted("half"):
        raise KeyboardInterrupt


def test_suggestions() -> None:
    assert suggestion("quantise", ["quantize", "list"]) == "did you mean quantize?"
    assert suggestion("zzz", ["quantize", "list"]) == "there are quantize, list"
