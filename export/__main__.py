"""The command line: ``python -m export CHECKPOINT ...`` and ``python -m export COMMAND ...``."""

from __future__ import annotations

import signal
import sys
from typing import Any

import click

from export.commands.inspect import inspect_command
from export.commands.list import list_command
from export.commands.model import model
from export.commands.quantize import quantize
from export.commands.study import study
from export.commands.train import train
from export.commands.verify import verify_command
from export.commands.versions import promote, remove
from export.errors import ExportError
from model_store.manifest import ManifestError
from model_store.store import StoreError

PROGRAM = "python -m export"
_INTERRUPTED = 130


class _Program(click.Group):
    """Takes a checkpoint where a command's name is expected; every error is one line and status 2."""

    default = "model"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
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


for command in (model, train, quantize, inspect_command, verify_command, list_command, promote, remove, study):
    cli.add_command(command)


if __name__ == "__main__":
    cli()
