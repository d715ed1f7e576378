"""``python -m service settings``: every setting of the service."""

from __future__ import annotations

import click

from service.config import reference


@click.command()
def settings() -> None:
    """Print every setting, its variable and its default: docs/configuration.md.

    \b
    Example:
      python -m service settings > docs/configuration.md
    """
    click.echo(reference(), nl=False)
