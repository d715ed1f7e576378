"""All commands of both programs, and of those below them: one help, one kind of error; docs/command-line.md has all."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner, Result

from export.__main__ import cli as export
from service.__main__ import cli as service
from tests.end_to_end.conftest import ROOT
from tests.end_to_end.test_documents import commands as documented

PROGRAMS = {"export": export, "service": service}
PAGE = (ROOT / "docs" / "command-line.md").read_text()
# What they may be called with, here: settings print a page, and a group lists its commands.
NEED_NOTHING = {("service", "serve"), ("service", "settings"), ("service", "metrics"), ("export", "list")}


def below(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from below(found, (*path, name))


COMMANDS = {path: command for name, program in PROGRAMS.items() for path, command in below(program, (name,))}
GROUPS = {path for path, command in COMMANDS.items() if isinstance(command, click.Group)}


def run(path: tuple[str, ...], *words: str) -> Result:
    return CliRunner().invoke(PROGRAMS[path[0]], [*path[1:], *words])


def error(done: Result) -> str:
    """The one line of it."""
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_there_are_commands() -> None:
    assert {("export", "model"), ("service", "client", "explain"), ("service", "keys", "new")} <= set(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_has_an_example(path: tuple[str, ...]) -> None:
    short, long = run(path, "-h"), run(path, "--help")
    assert (short.exit_code, short.stderr) == (0, "")
    assert short.stdout == long.stdout
    assert re.search(r"\n  Examples?:\n    python -m (export|service) ", short.stdout)
    if path in GROUPS:
        assert "Exit status: 0 all well; 1 it ran, " in short.stdout


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_a_wrong_option_is_one_line(path: tuple[str, ...]) -> None:
    line = error(run(path, "--no-such-option"))
    assert "--no-such-option" in line
    assert line.endswith(" -h says more)")


@pytest.mark.parametrize("path", sorted(set(COMMANDS) - GROUPS - NEED_NOTHING), ids=" ".join)
def test_what_is_missing_is_one_line(path: tuple[str, ...]) -> None:
    assert "Missing " in error(run(path))


@pytest.mark.parametrize("path", sorted(set(COMMANDS) - GROUPS), ids=" ".join)
def test_a_command_with_a_mistake_in_its_name_is_recognised(path: tuple[str, ...]) -> None:
    *group, name = path
    wrong = f"{name[:2]}x{name[2:]}"
    assert f"{wrong!r}; did you mean {name}?" in error(run(tuple(group), wrong))


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--store", "The model store, a folder or a URL such as s3://bucket/models"),
        ("--json", "Print one JSON object on standard output, and nothing else there."),
    ],
)
def test_an_option_is_the_same_wherever_it_is(option: str, said: str) -> None:
    having = [path for path, command in COMMANDS.items() if f"{option} " in _options(command)]
    assert len(having) >= 8
    for path in having:
        assert said in " ".join(run(path, "-h").stdout.split()), path


def test_what_is_written_is_named_by_output() -> None:
    assert not [path for path, command in COMMANDS.items() if "--out " in _options(command)]


def _options(command: click.Command) -> str:
    return "".join(f"{name} " for parameter in command.params for name in parameter.opts)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_page_has_all(path: tuple[str, ...]) -> None:
    assert f"`{' '.join(path[1:])}`" in PAGE if len(path) > 1 else f"python -m {path[0]}" in PAGE


@pytest.mark.parametrize(
    "command", [line for line in documented() if re.search(r"service (-h|settings|metrics)", line)]
)
def test_a_documented_command(command: str) -> None:
    done = subprocess.run(
        ["bash", "-c", command.replace(".venv/bin/python", sys.executable)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search("^(Usage: python -m service|# )", done.stdout)
