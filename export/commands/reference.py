"""``python -m export reference MODEL``: what the images that are served will be compared with."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from export.commands.options import images_option, place, store_option, taken, version_json
from export.reference import Measured, measure, publish
from model_store.command_line.options import json_option, print_json
from model_store.locations import open_store
from model_store.store import ModelStore
from model_store.stored_model import StoredModel


@click.command()
@click.argument("model")
@images_option("Images like those that will be served, at least 200; labels are not needed.")
@store_option
@json_option
def reference(model: str, images: Path, store: str, as_json: bool) -> None:
    """Tell a stored model what the images look like that it is meant for, so that serving notices when others come.

    MODEL is NAME or NAME@VERSION. Of the images only counts and means are
    kept: of predicted classes, confidence, entropy, energy and embeddings. No
    answer changes. The result is the model's next version; to go back, promote
    the one before.

    \b
    Example:
      python -m export reference mine --images photos.zip
    """
    models = open_store(store, writing=True)
    stored = models.find(model)
    stored.verify()
    measured = measure(stored, images, Console(stderr=True))
    published = publish(models, stored, measured)
    if as_json:
        print_json(version_json(models, published))
    else:
        click.echo(_summary(models, measured, published, stored.labels()))


def _summary(models: ModelStore, measured: Measured, published: StoredModel, labels: tuple[str, ...]) -> str:
    """What was measured and published, as lines of two columns."""
    reference = measured.reference
    often = zip(reference.top_classes[:5], reference.classes, strict=False)
    sure = reference.confidence[-1] / reference.images
    rows = [
        ("model", f"{published.manifest.name} version {published.manifest.version}"),
        ("folder", place(models, published)),
        ("reference", f"{reference.images} images of {reference.image_source}"),
        ("classes", ", ".join(f"{labels[one]} {count / reference.images:.1%}" for one, count in often)),
        ("confidence", f"above 0.9 for {sure:.1%}, at temperature {reference.temperature:.4f}"),
        ("energy", f"half of them above {reference.energy_edges[len(reference.energy_edges) // 2]:.3f}"),
        ("embedding", "none" if measured.embedding is None else f"{measured.embedding.shape[1]} dimensions"),
        taken(published),
    ]
    return "\n".join(f"{key:<13}{value}" for key, value in rows)
