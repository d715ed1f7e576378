"""``python -m export draft MODEL``: large JPEGs decoded smaller, if the model's answers stay the same."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from export.commands.options import images_option, place, store_option, taken, version_json
from export.draft import DraftRequest, Findings, measure, publish
from model_store.command_line.options import json_option, print_json
from model_store.locations import open_store


@click.command()
@click.argument("model")
@images_option("Photos as large as those that will be served; only those that are decoded smaller count.")
@click.option(
    "--margin",
    type=click.FloatRange(1, 8),
    default=DraftRequest.margin,
    show_default=True,
    metavar="TIMES",
    help="A JPEG is decoded smaller where this leaves so many times the side that the resize needs.",
)
@click.option(
    "--min-agreement",
    type=click.FloatRange(0, 100),
    default=100 * DraftRequest.min_agreement,
    show_default=True,
    metavar="PERCENT",
    help="How many of every variant's top classes must stay the same.",
)
@store_option
@json_option
def draft(model: str, images: Path, margin: float, min_agreement: float, store: str, as_json: bool) -> None:
    """Have large JPEGs decoded at 1/2, 1/4 or 1/8 of their size, if a stored model still gives the same answers.

    MODEL is NAME or NAME@VERSION. What passes becomes the model's next
    version; to go back, promote the one before.

    \b
    Example:
      python -m export draft mine --images photos/
    """
    models = open_store(store, writing=True)
    stored = models.find(model)
    stored.verify()
    request = DraftRequest(model, store, images, margin, min_agreement / 100)
    findings = measure(stored, request, Console(stderr=True))
    if not as_json:
        click.echo("\n".join(_report(findings)))
    published = publish(models, stored, findings, margin)
    if as_json:
        print_json(version_json(models, published))
        return
    version = f"{published.manifest.name} version {published.manifest.version}"
    rows = [("model", version), ("folder", place(models, published)), taken(published)]
    click.echo("\n".join(f"{key:<12}{value}" for key, value in rows))


def _report(findings: Findings) -> list[str]:
    """What was measured, as lines of two columns."""
    first = next(iter(findings.gates.values()))
    ratio = findings.whole_ms / findings.scaled_ms
    rows = [
        ("images", f"{first.images} large JPEGs of {first.image_source}"),
        ("decoding", f"{findings.whole_ms:.1f} ms whole, {findings.scaled_ms:.1f} ms scaled ({ratio:.1f} times)"),
    ]
    for precision, gate in findings.gates.items():
        figures = (
            f"same top class on {gate.top1_agreement:.2%}, largest change of a logit {gate.max_absolute_error:.2g}"
        )
        rows.append((precision, figures))
    return [f"{key:<12}{value}" for key, value in rows]
