"""``python -m service bulk INPUT...``: many images through a model, without a server."""

from __future__ import annotations

import logging
import sys
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Literal

import click
from rich.console import Console

from model_store.command_line.options import json_option, print_json
from model_store.command_line.program import SOME_FAILED, when_interrupted
from service.bulk.parts import BulkError
from service.bulk.planning import Asked, plan
from service.bulk.progress import Told
from service.bulk.scorer import Scorer, find_model
from service.commands.options import settings_with, store_option

if TYPE_CHECKING:
    from service.bulk.output import Output


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--output", "-o", required=True, metavar="OUT.parquet", help="Folder for the results, a path or URL.")
@click.option("--model", metavar="NAME[@VERSION]", help="The model; by default the only one of the store.")
@store_option
@click.option("--embed", is_flag=True, help="Also write each image's feature vector.")
@click.option("--top-k", type=click.IntRange(1), default=5, show_default=True, help="Classes of each image.")
@click.option("--column", help="Of Parquet files: the column with the images' bytes or paths.")
@click.option("--key-column", help="Of Parquet files: the column that names the rows; else they are numbered.")
@click.option(
    "--part-images",
    type=click.IntRange(1, 1_000_000),
    default=2000,
    show_default=True,
    help="Images of one file of results; a run that was killed begins again with the files that are missing.",
)
@click.option(
    "--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="This process, or Ray."
)
@click.option("--ray-address", metavar="ADDRESS", help="A Ray cluster; by default one is started on this machine.")
@json_option
@when_interrupted("the same command again goes on with what is missing")
def bulk(
    inputs: tuple[str, ...],
    output: str,
    model: str | None,
    store: str | None,
    embed: bool,
    top_k: int,
    column: str | None,
    key_column: str | None,
    part_images: int,
    engine: Literal["local", "ray"],
    ray_address: str | None,
    as_json: bool,
) -> None:
    """Score all images of INPUT and write Parquet.

    INPUT is a folder, a pattern, a zip or tar archive, a list of paths (.txt),
    or a Parquet file with --column; here or wherever fsspec reaches (s3://...).
    Status 1: some images failed, their rows say why. The same command again
    goes on with what is missing.

    \b
    Examples:
      python -m service bulk photos/ --output labels.parquet
      python -m service bulk 'shards/*.tar' --output vectors.parquet --embed
      python -m service bulk images.parquet --column image --output labels.parquet
    """
    try:
        from service.bulk.output import Output, Run
    except ImportError as error:
        raise BulkError("bulk scoring needs pyarrow: pip install pyarrow") from error

    told = Console(stderr=True)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    settings = settings_with(store)
    stored = find_model(settings, model)
    manifest = stored.manifest
    asked = Asked(inputs, column, key_column, part_images)
    out = Output(output)
    with ExitStack() as stack:
        top_k = min(top_k, manifest.outputs.classes)
        scorer = stack.enter_context(closing(Scorer(settings, stored, top_k, embed)))
        run = Run(
            inputs=inputs,
            column=column,
            key_column=key_column,
            model=manifest.name,
            version=manifest.version,
            sha256=scorer.sha256,
            precision=scorer.precision,
            provider=scorer.provider,
            top_k=top_k,
            embed=embed,
            part_images=part_images,
        )
        resumed = out.begin(run, plan(asked))
        everything, before = out.counts()
        pending = out.pending_numbers()
        failed_before = out.failed() if resumed else 0
        if resumed:
            _line(told, f"{out.url}: going on, {before} of {everything} images are done")
        if engine == "ray":
            from service.bulk import cluster

            stack.close()
            del scorer  # its actors have their own: this one takes memory and cores from them
            score = partial(cluster.run, run, out, settings, ray_address)
        else:
            from service.bulk import local

            score = partial(local.run, run, out, scorer)
        progress = stack.enter_context(Told(everything, before, told))
        score(progress)
    # By names alone: Arrow's threads, which reading a table leaves behind for a moment, would meet the program's end.
    if gone := set(pending) - out.finished():
        raise BulkError(f"{out.url}: {len(gone)} parts have no images any more: what they were planned of has changed")
    out.tidy()
    failed = failed_before + progress.failed
    _summary(out, progress, before, failed, told, as_json)
    sys.exit(SOME_FAILED if failed else 0)


def _summary(out: Output, progress: Told, before: int, failed: int, told: Console, as_json: bool) -> None:
    """Of this run, but ``failed`` are those of the whole output."""
    if as_json:
        found = {
            "output": out.url,
            "images": progress.done,
            "failed": failed,
            "done_before": before,
            "seconds": round(progress.seconds, 3),
            "images_per_second": round(progress.rate, 1),
        }
        print_json(found)
        return
    of_them = f", {failed} of the output failed (column error)" if failed else ""
    _line(told, f"{progress.done} images in {progress.seconds:.1f} s, {progress.rate:.1f}/s{of_them}: {out.url}")


def _line(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, markup=False, highlight=False)
