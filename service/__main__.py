"""The command line: ``python -m service COMMAND ...``."""

from __future__ import annotations

import click

from model_store.command_line.program import Program

PROGRAM = "python -m service"
COMMANDS = {
    "serve": "service.commands.serve:serve",
    "tune": "service.commands.tune:tune",
    "bulk": "service.commands.bulk:bulk",
    "client": "service.client.command.main:main",
    "keys": "service.commands.keys:keys",
    "settings": "service.commands.settings:settings",
    "metrics": "service.commands.metrics:metrics",
}


@click.group(cls=Program, lazy=COMMANDS, program=PROGRAM, install="make install")
def cli() -> None:
    """Serve models, ask a running service, score many images without one.

    \b
    Examples:
      python -m service serve --store models
      python -m service client predict photos/
      python -m service bulk photos/ --output labels.parquet
    """


if __name__ == "__main__":
    cli()
