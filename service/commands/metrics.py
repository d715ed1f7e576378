"""``python -m service metrics``: every metric of the service."""

from __future__ import annotations

import click

from service.metrics.reference import reference


@click.command()
def metrics() -> None:
    """Print every metric with its labels and meaning: docs/metrics.md.

    \b
    Example:
      python -m service metrics > docs/metrics.md
    """
    click.echo(reference(), nl=False)
