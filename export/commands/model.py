"""``python -m export CHECKPOINT``: the default command, from weights to a published model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, get_args

import click
from rich.console import Console

from export.checkpoints.origins import NAMES, Description
from export.commands import PROGRAM
from export.commands.options import place, store_option, version_json
from export.convert import Request, convert
from export.downloads.pretrained import Pretrained, default_cache, resolve
from export.graphs.contract import Maps
from export.preprocessing import InputOptions
from export.reports.model_card import CardNotes, original
from model_store.command_line.options import json_option, print_json
from model_store.command_line.program import write_statuses
from model_store.locations import open_store
from model_store.manifest import ChannelOrder, Interpolation, ResizeMode
from model_store.store import EMBEDDED_MODELS, ModelStore
from model_store.stored_model import StoredModel

_FILE: Final = click.Path(path_type=Path)


class _Maps(click.ParamType[Maps]):
    """A number of classes, or ``all``."""

    name = "N|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Maps:
        return value if value in (None, "all") else click.IntRange(min=1).convert(value, param, ctx)


class _Model(click.Command):
    """Its usage lines are the program's own."""

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(PROGRAM, "CHECKPOINT --arch NAME --name MODEL [OPTIONS]")
        formatter.write_usage(PROGRAM, "--pretrained REFERENCE --name MODEL [OPTIONS]")
        formatter.write_usage(PROGRAM, "--onnx FILE --name MODEL [OPTIONS]")
        formatter.write_usage(PROGRAM, "COMMAND --help")

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The other commands, as this is the help of the whole program too."""
        program = ctx.parent.command if ctx.parent else None
        if isinstance(program, click.Group):
            found = [(name, program.get_command(ctx, name)) for name in program.list_commands(ctx)]
            others = [(name, command.get_short_help_str(80)) for name, command in found if command not in (None, self)]
            with formatter.section("Other commands"):
                formatter.write_dl(others)
        write_statuses(formatter)


@click.command("model", cls=_Model)
@click.argument("checkpoint", type=_FILE, required=False)
@click.option("--pretrained", metavar="REFERENCE", help="Published weights: torchvision/NAME or hf://OWNER/NAME.")
@click.option("--onnx", type=_FILE, metavar="FILE", help="An existing ONNX network, float32 [batch, 3, height, width].")
@click.option("--name", metavar="MODEL", required=True, help="The model's name in the store and in requests.")
@click.option(
    "--arch",
    metavar="NAME",
    help="The architecture (docs/architectures.md), or a .json file with a spec. "
    "Not needed where the origin names it or only one fits the weights.",
)
@click.option("--origin", type=click.Choice(NAMES), help="Where the weights come from; recognised by itself.")
@click.option(
    "--weights", metavar="KEY", help="Key of the state dict in a training checkpoint, or prefix of its names."
)
@click.option("--version", metavar="N", help="A whole number; by default the next one.")
@click.option("--labels", type=_FILE, metavar="FILE", help="The classes' names, one a line.")
@store_option
@json_option
@click.option(
    "--images",
    type=_FILE,
    metavar="DIR_OR_ZIP",
    help="Compare on these images, and measure accuracy if they lie in a folder a label.",
)
@click.option("--size", type=click.IntRange(8, 4096), help="Input height and width, pixels (ImageNet 224, CIFAR 32).")
@click.option(
    "--resize", type=click.IntRange(8, 8192), help="Shorter side before the crop, pixels (ImageNet 256, CIFAR 32)."
)
@click.option("--crop", type=click.FloatRange(0, 1, min_open=True), help="Instead of --resize: size / resize.")
@click.option(
    "--resize-mode", type=click.Choice(get_args(ResizeMode)), help="Keep proportions (shorter), or not (squash)."
)
@click.option("--interpolation", type=click.Choice(get_args(Interpolation)), help="Of the resize; bilinear if unknown.")
@click.option("--mean", type=float, nargs=3, metavar="R G B", help="In the order of the network's channels.")
@click.option("--std", type=float, nargs=3, metavar="R G B", help="In the order of the network's channels.")
@click.option("--channel-order", type=click.Choice(get_args(ChannelOrder)), help="What the network takes.")
@click.option(
    "--value-range",
    type=float,
    nargs=2,
    metavar="LOW HIGH",
    help="What black and white are before --mean and --std, which are 0 and 1 with it; without it 0 and 1.",
)
@click.option(
    "--maps",
    type=_Maps(),
    help="Of how many classes, the best ones of an image, the graph gives activation maps: by default all of up to "
    "100, else 10.",
)
@click.option("--cache", type=_FILE, metavar="DIR", help="Where --pretrained keeps its downloads.")
@click.option("--mirror", metavar="URL", help="Where --pretrained looks in the place of the public server.")
@click.option("--trained-on", metavar="TEXT", help="For the model card: the training data.")
@click.option("--limit", multiple=True, metavar="TEXT", help="For the model card: a known limit; may be repeated.")
def model(
    checkpoint: Path | None,
    pretrained: str | None,
    onnx: Path | None,
    name: str,
    arch: str | None,
    origin: str | None,
    weights: str | None,
    version: str | None,
    labels: Path | None,
    store: str,
    as_json: bool,
    images: Path | None,
    maps: Maps,
    cache: Path | None,
    mirror: str | None,
    trained_on: str | None,
    limit: tuple[str, ...],
    **preprocessing: Any,
) -> None:
    """Turn a trained ResNet into a verified ONNX model in the model store.

    CHECKPOINT is a file with a state dict (.pth, .pt, .th, .ckpt, .bin,
    .safetensors), an archive of torch.export (.pt2) or a folder of Hugging Face
    or timm. The ONNX file is compared with PyTorch on the same pixels and
    published only where they agree.

    \b
    Examples:
      python -m export resnet50.pth --arch resnet50 --name resnet50 --labels imagenet.txt
      python -m export my-finetuned-resnet/ --name mine
      python -m export --pretrained torchvision/resnet50 --name resnet50
      python -m export --onnx network.onnx --name network --mean 0 0 0 --std 1 1 1
      python -m export train --images train.zip --output build/mine.pth   (more: train --help)
    """
    console = Console(stderr=True)
    _check_usage(checkpoint, pretrained, onnx, preprocessing)
    published = resolve_published(pretrained, cache, mirror, console) if pretrained else None
    request = Request(
        checkpoint=_given(checkpoint, onnx, published),
        name=name,
        store=store,
        arch=arch,
        version=version,
        labels=labels,
        verify_images=images,
        input=InputOptions(**preprocessing),
        notes=CardNotes(trained_on, limit),
        onnx=onnx is not None,
        origin=origin or (published.origin if published else None),
        weights=weights,
        about=_about(published) if published else None,
        reference=published.reference if published else None,
        maps=maps,
    )
    stored = convert(request, console)
    if as_json:
        print_json(version_json(open_store(store), stored))
    else:
        click.echo(summary(stored, store))


def _check_usage(
    checkpoint: Path | None, pretrained: str | None, onnx: Path | None, preprocessing: dict[str, Any]
) -> None:
    if sum(source is not None for source in (checkpoint, pretrained, onnx)) != 1:
        raise click.UsageError("name one of CHECKPOINT, --pretrained REFERENCE and --onnx FILE")
    if preprocessing["crop"] is not None and preprocessing["resize"] is not None:
        raise click.UsageError("--crop and --resize say the same: name one of them")


def resolve_published(reference: str, cache: Path | None, mirror: str | None, console: Console) -> Pretrained:
    """The published weights called ``reference``, on this machine."""
    folder = cache or default_cache(os.environ)
    return resolve(reference, folder, console, mirror=mirror, token=os.environ.get("HF_TOKEN"))


def _given(checkpoint: Path | None, onnx: Path | None, published: Pretrained | None) -> Path:
    path = checkpoint or onnx or (published.checkpoint if published else None)
    if path is None:
        raise click.UsageError("nothing to export")
    return path


def _about(published: Pretrained) -> Description | None:
    """What the publisher says; None where it lies in the folder with the weights."""
    if published.preprocessing is None:
        return None
    return Description(
        architecture=published.architecture,
        labels=published.labels,
        input=InputOptions.of(published.preprocessing),
        source=published.reference,
    )


def _from_anywhere(store: ModelStore) -> str:
    return str(store.root.resolve()) if str(store) == str(store.root) else str(store)


def summary(stored: StoredModel, location: str) -> str:
    """What was published, and the next commands, as lines of two columns."""
    manifest, store = stored.manifest, open_store(location)
    rows = [
        ("model", f"{manifest.name} version {manifest.version} ({manifest.architecture.name})"),
        ("folder", place(store, stored)),
    ]
    for variant in manifest.variants:
        rows.append((variant.precision, f"{variant.bytes / 1e6:.1f} MB, opset {manifest.opset}"))
        if (parity := variant.parity) is None:
            continue
        rows.append(
            (
                "parity",
                f"passed: top-1 {parity.top1_agreement:.2%}, relative error {parity.max_relative_error:.1e}, "
                f"{parity.images} images, {parity.image_source}",
            )
        )
        if parity.accuracy:
            accuracy = parity.accuracy
            rows.append(("accuracy", f"{accuracy.exported:.2%} ({original(manifest)} {accuracy.pytorch:.2%})"))
    setting = "" if location == str(EMBEDDED_MODELS) else f"RESNET_MODEL_STORE={_from_anywhere(store)} "
    rows.append(("serve", f"{setting}make serve"))
    rows.append(("ask", f"curl --data-binary @photo.jpg 'http://localhost:3000/v1/classify?model={manifest.name}'"))
    return "\n".join(f"{key:<10}{value}" for key, value in rows)
