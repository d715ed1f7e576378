"""``python -m export calibrate MODEL``: probabilities that say how often the model is right."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from export.calibration.calibrate import CalibrateRequest, measure, publish
from export.calibration.calibration_report import REPORT_FILE, Findings, scores
from export.commands.options import images_option, place, store_option, taken, version_json
from model_store.command_line.options import json_option, print_json
from model_store.locations import open_store
from model_store.store import ModelStore
from model_store.stored_model import StoredModel


@click.command()
@click.argument("model")
@images_option("Images in a folder a label, like those that will be served, that the model was not trained on.")
@click.option(
    "--outliers",
    type=click.Path(path_type=Path),
    metavar="DIR_OR_ZIP",
    help="Images of anything else: tells how well the scores find them. Nothing is fitted on them.",
)
@click.option(
    "--coverage",
    type=click.FloatRange(0, 100, min_open=True),
    default=100 * CalibrateRequest.coverage,
    show_default=True,
    metavar="PERCENT",
    help="How many of the images have at least the energy and the largest logit of the thresholds.",
)
@store_option
@json_option
def calibrate(model: str, images: Path, outliers: Path | None, coverage: float, store: str, as_json: bool) -> None:
    """Make a stored model's probabilities say how often it is right, and find thresholds for what it does not know.

    MODEL is NAME or NAME@VERSION. One half of the images fits a temperature
    for its logits, the other half says how far confidence and accuracy are
    apart, before and after. No answer changes. The result is the model's next
    version, with a report; to go back, promote the one before.

    \b
    Examples:
      python -m export calibrate mine --images test.zip
      python -m export calibrate mine --images test.zip --outliers photos.zip
    """
    models = open_store(store, writing=True)
    stored = models.find(model)
    stored.verify()
    console = Console(stderr=True)
    findings = measure(stored, CalibrateRequest(model, store, images, outliers, coverage / 100), console)
    for note in findings.notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    published = publish(models, stored, findings)
    if as_json:
        print_json(version_json(models, published))
    else:
        click.echo(_summary(models, findings, published))


def _summary(models: ModelStore, findings: Findings, published: StoredModel) -> str:
    """What was measured and published, as lines of two columns."""
    calibration = findings.calibration
    rows = [
        ("model", f"{published.manifest.name} version {published.manifest.version}"),
        ("folder", place(models, published)),
        ("temperature", f"{calibration.temperature:.4f}, of {calibration.images} images of {calibration.image_source}"),
        ("measured on", f"{calibration.held_out} others, accuracy {findings.accuracy:.2%}"),
        ("likelihood", "{:.4f} nats before, {:.4f} after".format(*findings.likelihood)),
    ]
    for variant in findings.variants:
        errors = f"calibration error {variant.error_before:.2%} before, {variant.error_after:.2%} after"
        rows.append((variant.precision, f"{errors} ({variant.provider})"))
    for score in scores(findings):
        text = f"at least {score.limit:.3f}: reached by {score.reached:.2%} of the images"
        if score.detection:
            text += f" and {score.detection.accepted:.2%} of the outliers, AUROC {score.detection.auroc:.4f}"
        rows.append((score.name, text))
    rows += [("report", f"{place(models, published)}/{REPORT_FILE}"), taken(published)]
    return "\n".join(f"{key:<13}{value}" for key, value in rows)
