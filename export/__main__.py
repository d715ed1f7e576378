"""The command line: ``python -m export CHECKPOINT ...`` and ``python -m export train ...``."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any, get_args

import click
from rich.console import Console

from export.convert import InputOptions, Request, convert
from export.errors import ExportError
from export.model_card import CardNotes
from export.specs import SPECS
from export.train import Recipe, run_training
from model_store.manifest import Interpolation, ManifestError, Triple
from model_store.store import EMBEDDED_MODELS, StoredModel, StoreError

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


class _Model(click.Command):
    """The default command: its usage line is the program's own."""

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(PROGRAM, "CHECKPOINT --arch NAME --name MODEL [OPTIONS]")
        formatter.write_usage(PROGRAM, "train --data ZIP_OR_DIR [OPTIONS]")


@click.group(cls=_Program)
def cli() -> None:
    """Export a checkpoint, or train one."""


@cli.command("model", cls=_Model, no_args_is_help=True)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--arch", metavar="NAME", help=f"One of {', '.join(SPECS)}. Not needed for what `train` wrote.")
@click.option("--name", metavar="MODEL", required=True, help="The model's name in the store and in requests.")
@click.option("--version", metavar="N", help="A whole number; by default the next one.")
@click.option("--labels", type=click.Path(path_type=Path), metavar="FILE", help="The classes' names, one a line.")
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The model store; by default the one in this repository.",
)
@click.option(
    "--verify-images",
    type=click.Path(path_type=Path),
    metavar="DIR_OR_ZIP",
    help="Compare on these images, and measure accuracy if they lie in a folder a label.",
)
@click.option("--size", type=click.IntRange(8, 4096), help="Input height and width, pixels (ImageNet 224, CIFAR 32).")
@click.option(
    "--resize", type=click.IntRange(8, 8192), help="Shorter side before the crop, pixels (ImageNet 256, CIFAR 32)."
)
@click.option("--interpolation", type=click.Choice(get_args(Interpolation)), default="bilinear", show_default=True)
@click.option("--mean", type=float, nargs=3, metavar="R G B", help="Of 0..1 values; ImageNet's, or those of `train`.")
@click.option("--std", type=float, nargs=3, metavar="R G B", help="Of 0..1 values; ImageNet's, or those of `train`.")
@click.option("--trained-on", metavar="TEXT", help="For the model card: the training data.")
@click.option("--limit", multiple=True, metavar="TEXT", help="For the model card: a known limit; may be repeated.")
def model(
    checkpoint: Path,
    arch: str | None,
    name: str,
    version: str | None,
    labels: Path | None,
    store: Path | None,
    verify_images: Path | None,
    size: int | None,
    resize: int | None,
    interpolation: Interpolation,
    mean: Triple | None,
    std: Triple | None,
    trained_on: str | None,
    limit: tuple[str, ...],
) -> None:
    """Turn a trained ResNet into a verified ONNX model in the model store.

    CHECKPOINT is a .pth, .pt, .th or .safetensors file with a state dict.
    The ONNX file is compared with PyTorch on the same pixels and published
    only where they agree.

    \b
    Examples:
      python -m export resnet50.pth --arch resnet50 --name resnet50 --labels imagenet.txt
      python -m export resnet20.th --arch cifar_resnet20 --name cifar10 --verify-images test.zip
      python -m export train --data train.zip --out build/mine.pth   (more: train --help)
      python -m export build/mine.pth --name mine
    """
    request = Request(
        checkpoint=checkpoint,
        name=name,
        store=store or EMBEDDED_MODELS,
        arch=arch,
        version=version,
        labels=labels,
        verify_images=verify_images,
        input=InputOptions(size, resize, interpolation, mean, std),
        notes=CardNotes(trained_on, limit),
    )
    stored = convert(request, Console(stderr=True))
    click.echo(_summary(stored, store))


def _summary(stored: StoredModel, store: Path | None) -> str:
    """What was published, and the next commands, as lines of two columns."""
    manifest = stored.manifest
    rows = [
        ("model", f"{manifest.name} version {manifest.version} ({manifest.architecture.name})"),
        ("folder", str(stored.folder)),
    ]
    for variant in manifest.variants:
        parity = variant.parity
        rows.append((variant.precision, f"{variant.bytes / 1e6:.1f} MB, opset {manifest.opset}"))
        rows.append(
            (
                "parity",
                f"passed: top-1 {parity.top1_agreement:.2%}, relative error {parity.max_relative_error:.1e}, "
                f"{parity.images} images, {parity.image_source}",
            )
        )
        if parity.accuracy:
            accuracy = parity.accuracy
            rows.append(("accuracy", f"{accuracy.exported:.2%} (PyTorch {accuracy.pytorch:.2%})"))
    setting = f"RESNET_MODEL_STORE={store.resolve()} " if store else ""
    rows.append(("serve", f"{setting}make serve"))
    rows.append(("ask", f"curl --data-binary @photo.jpg 'http://localhost:3000/v1/classify?model={manifest.name}'"))
    return "\n".join(f"{key:<10}{value}" for key, value in rows)


@cli.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, metavar="ZIP_OR_DIR", help="A folder a class.")
@click.option("--arch", default=Recipe.arch, show_default=True, metavar="NAME", help=f"One of {', '.join(SPECS)}.")
@click.option("--epochs", type=click.IntRange(min=1), default=Recipe.epochs, show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("checkpoint.pth"), show_default=True, metavar="FILE"
)
@click.option("--validate", type=click.Path(path_type=Path), metavar="ZIP_OR_DIR", help="Measure accuracy on these.")
def train(data: Path, arch: str, epochs: int, out: Path, validate: Path | None) -> None:
    """Train a network on labelled images.

    The checkpoint is written after every epoch; the same command goes on from
    there after an interruption.

    \b
    Example:
      python -m export train --data cifar10-train.zip --validate cifar10-test.zip --out build/mine.pth
    """
    run_training(Recipe(arch=arch, epochs=epochs), data, out, Console(stderr=True), validate)
    click.echo(f"{out} is trained; next: {PROGRAM} {out} --name MODEL")


if __name__ == "__main__":
    cli()
