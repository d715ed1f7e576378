"""What the gate lets through, as options of the commands that ask it."""

from __future__ import annotations

import click

from export.variants.gate import Thresholds

max_accuracy_drop_option = click.option(
    "--max-accuracy-drop",
    type=click.FloatRange(0, 100),
    default=100 * Thresholds.max_accuracy_drop,
    show_default=True,
    metavar="POINTS",
    help="With labels: how far below fp32's a variant's accuracy may be.",
)
min_agreement_option = click.option(
    "--min-agreement",
    type=click.FloatRange(0, 100),
    default=100 * Thresholds.min_agreement,
    show_default=True,
    metavar="PERCENT",
    help="Without labels: how many of a variant's top classes must be fp32's.",
)
