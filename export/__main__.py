"""The command line: ``python -m export CHECKPOINT ...`` and ``python -m export COMMAND ...``."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Final

import click

from export.commands import PROGRAM
from model_store.command_line.program import Program, suggestion

_DEFAULT = "model"
COMMANDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "model": "export.commands.model:model",
        "train": "export.commands.train:train",
        "quantize": "export.commands.quantize:quantize",
        "draft": "export.commands.draft:draft",
        "calibrate": "export.commands.calibrate:calibrate",
        "reference": "export.commands.reference:reference",
        "inspect": "export.commands.inspect:inspect_command",
        "verify": "export.commands.verify:verify_command",
        "list": "export.commands.list:list_command",
        "promote": "export.commands.versions:promote",
        "remove": "export.commands.versions:remove",
        "study": "export.commands.study:study",
    }
)


class _Program(Program):
    """Takes a checkpoint where a command's name is expected."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] in COMMANDS:
            return super().parse_args(ctx, args)
        if args and args[0].isalpha() and not Path(args[0]).exists():
            _check_word(ctx, args[0])
        return super().parse_args(ctx, [_DEFAULT, *(args or ["--help"])])


def _check_word(ctx: click.Context, word: str) -> None:
    """A command's name with a mistake in it is no checkpoint."""
    if get_close_matches(word, COMMANDS, n=1):
        raise click.UsageError(f"there is no command and no file {word!r}; {suggestion(word, list(COMMANDS))}", ctx)


@click.group(
    cls=_Program,
    lazy=COMMANDS,
    program=PROGRAM,
    install="make install-dev",
    interrupted="nothing was published",
)
def cli() -> None:
    """Export a checkpoint, train one, and look after the model store."""


if __name__ == "__main__":
    cli()
