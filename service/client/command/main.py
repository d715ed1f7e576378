"""``python -m service client``: images from the command line to a running service, results as files."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from model_store.command_line.program import Program
from service.client.command.asking import Ask, Outcome, failed
from service.client.command.files import Source, printable
from service.client.command.options import BATCH, shared
from service.client.command.records import EMBEDDINGS, EXPLANATIONS, PREDICTIONS
from service.client.command.run import Command, Shared, run
from service.client.command.saving import save, targets
from service.client.concurrent import AsyncClient
from service.client.results import Problem


@click.group(cls=Program)
def main() -> None:
    """Ask a running service about images.

    FILES are files, folders with images at any depth, patterns such as
    'photos/**/*.jpg', and - for standard input. Results have the order of the
    files. Status 1: some images failed, their rows say why; 2: the service
    cannot be reached, or refuses everything.

    \b
    Examples:
      python -m service client predict photos/
      python -m service client predict photos/ --top-k 3 --output labels.csv
      python -m service client embed photos/ --output vectors.parquet
      python -m service client explain ship.jpg --save maps/ --style overlay
    """


@main.command()
@shared
@BATCH
@click.option(
    "--top-k", type=click.IntRange(1), default=1, show_default=True, help="Classes of each image: a row each."
)
@click.option("--min-probability", type=click.FloatRange(0, 1), help="Leave images without a label below this.")
def predict(options: Shared, top_k: int, min_probability: float | None) -> None:
    """What the images show.

    \b
    Example:
      python -m service client predict photos/ --top-k 3 --output labels.csv
    """

    def ask(client: AsyncClient, _: Sequence[Source]) -> Ask:
        async def asked(sources: Sequence[Source], images: Sequence[bytes]) -> list[Outcome]:
            results = await client.classify(images, top_k=top_k, min_probability=min_probability)
            return [Outcome(source, result, {}) for source, result in zip(sources, results, strict=True)]

        return asked

    sys.exit(run(options, Command(PREDICTIONS, "csv", ask)))


@main.command()
@shared
@BATCH
@click.option("--normalize", is_flag=True, help="Vectors of length 1.")
def embed(options: Shared, normalize: bool) -> None:
    """The images' feature vectors.

    \b
    Example:
      python -m service client embed photos/ --output vectors.parquet
    """

    def ask(client: AsyncClient, _: Sequence[Source]) -> Ask:
        async def asked(sources: Sequence[Source], images: Sequence[bytes]) -> list[Outcome]:
            results = await client.embed(images, normalize=normalize or None)
            return [Outcome(source, result, {}) for source, result in zip(sources, results, strict=True)]

        return asked

    sys.exit(run(options, Command(EMBEDDINGS, "ndjson", ask)))


@main.command()
@shared
@click.option(
    "--save",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Save a PNG of each there.",
)
@click.option("--class", "class_", metavar="LABEL", help="The class to explain, a label or index; the best if absent.")
@click.option("--style", type=click.Choice(["heatmap", "overlay"]), help="What the PNGs show.")
@click.option("--opacity", type=click.FloatRange(0, 1), help="Of the heatmap over the image.")
@click.option("--colormap", metavar="NAME", help="The heatmap's colours.")
def explain(options: Shared, folder: Path | None, class_: str | None, **drawing: Any) -> None:
    """Where in the images the network saw a class.

    \b
    Example:
      python -m service client explain ship.jpg --save maps/ --style overlay
    """
    if folder is None and any(value is not None for value in drawing.values()):
        raise click.UsageError("--style, --opacity and --colormap need --save DIR")

    def ask(client: AsyncClient, sources: Sequence[Source]) -> Ask:
        target = targets(sources, folder).__getitem__ if folder is not None else None

        async def asked(sources: Sequence[Source], images: Sequence[bytes]) -> list[Outcome]:
            (source,), (image,) = sources, images
            return [await _explained(client, source, image, class_, target, drawing)]

        return asked

    sys.exit(run(options, Command(EXPLANATIONS, "csv" if folder is not None else "ndjson", ask)))


async def _explained(
    client: AsyncClient,
    source: Source,
    image: bytes,
    class_: str | None,
    target: Callable[[Source], Path] | None,
    drawing: dict[str, Any],
) -> Outcome:
    """The explanation, and where ``target`` gives a place its picture there."""
    result = await client.explain(image, class_=class_)
    if target is None or result.heatmap is None:
        return Outcome(source, result, {})
    # By its index: the same class, also where a label stands for several.
    picture = await client.explain_png(image, class_=result.heatmap.index, **drawing)
    path = target(source)
    try:
        await asyncio.to_thread(save, path, picture)
    except OSError as error:
        return failed(source, Problem(code="not_saved", message=f"{path}: {error.strerror}"))
    return Outcome(source, result, {"saved": printable(str(path))})
