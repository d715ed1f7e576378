"""The command line: ``python -m export CHECKPOINT ...`` and ``python -m export COMMAND ...``."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import click

from export.errors import ExportError
from model_store.manifest import ManifestError
from model_store.store import StoreError

PROGRAM = "python -m export"
_INTERRUPTED = 130
# Name by name, where in ``export.commands`` it is.
COMMANDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "model": "model:model",
        "train": "train:train",
        "quantize": "quantize:quantize",
        "draft": "draft:draft",
        "calibrate": "calibrate:calibrate",
        "reference": "reference:reference",
        "inspect": "inspect:inspect_command",
        "verify": "verify:verify_command",
        "list": "list:list_command",
        "promote": "versions:promote",
        "remove": "versions:remove",
        "study": "study:study",
    }
)


class _Program(click.Group):
    """Takes a checkpoint where a command's name is expected; every error is one line and status 2."""

    default = "model"

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imported only when asked for: no command waits for what another one needs."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(f"export.commands.{module}"), attribute)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in COMMANDS:
            args = [self.default, *(args or ["--help"])]
        return super().parse_args(ctx, args)

    def main(self, *args: Any, **options: Any) -> Any:
        options["standalone_mode"] = False
        options["prog_name"] = PROGRAM
        # Terminated is as good as interrupted: nothing half-written stays behind.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            status = super().main(*args, **options)
        except click.Abort:
            _fail("interrupted; nothing was published", _INTERRUPTED)
        except click.ClickException as error:
            _fail(error.format_message())
        except (ExportError, StoreError, ManifestError, OSError) as error:
            _fail(str(error))
        sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, status: int = 2) -> None:
    click.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(status)


@click.group(cls=_Program)
def cli() -> None:
    """Export a checkpoint, train one, and look after the model store."""


if __name__ == "__main__":
    cli()
