"""``python -m export inspect``: what a stored model or a checkpoint is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import click

from export.checkpoints.checkpoint import Checkpoint, read_checkpoint
from export.checkpoints.fitting import fitting_architectures
from export.commands.list import describe
from export.commands.options import ModelReference, place, store_option
from export.errors import ExportError
from export.networks.architecture import AnySpec, parse_spec
from export.networks.costs import cost
from export.networks.specs import get_spec
from model_store.locations import open_store
from model_store.manifest import Manifest, Preprocessing, Variant
from model_store.stored_model import StoredModel

_LABELS_SHOWN: Final = 10
Row = tuple[str, str]


@click.command("inspect")
@click.argument("what", metavar="MODEL_OR_CHECKPOINT")
@store_option
def inspect_command(what: str, store: str) -> None:
    """Print what a model in the store, or a checkpoint, is.

    MODEL_OR_CHECKPOINT is NAME or NAME@VERSION, or the path of a checkpoint.

    \b
    Examples:
      python -m export inspect cifar10-resnet16
      python -m export inspect resnet50.pth
    """
    path = Path(what)
    rows = checkpoint_rows(read_checkpoint(path)) if path.exists() else _stored_rows(what, store)
    click.echo("\n".join(f"{key:<16}{value}" for key, value in rows))


def _stored_rows(reference: str, location: str) -> Iterator[Row]:
    if "/" in reference or Path(reference).suffix in (".pth", ".pt", ".th", ".safetensors", ".pt2", ".ckpt", ".bin"):
        raise ExportError(f"{reference}: no such file")
    name, version = ModelReference().convert(reference, None, None)
    store = open_store(location)
    stored = store.resolve(name, version)
    return model_rows(stored, place(store, stored))


def model_rows(stored: StoredModel, where: str) -> Iterator[Row]:
    """What the manifest says, with the costs that follow from it."""
    manifest = stored.manifest
    yield "model", f"{manifest.name} version {manifest.version}, exported {manifest.created:%Y-%m-%d}"
    yield "folder", where
    yield from _architecture_rows(manifest)
    yield "source", f"{manifest.source.file} ({manifest.source.origin}), SHA-256 {manifest.source.sha256}"
    yield "input", _input(manifest.preprocessing)
    yield "labels", _labels(stored.labels())
    yield "outputs", _outputs(manifest)
    for variant in manifest.variants:
        yield variant.precision, f"{variant.file}, {variant.bytes / 1e6:.1f} MB, ONNX opset {manifest.opset}"
        yield from _report_rows(variant)
    if calibration := manifest.calibration:
        yield (
            "calibration",
            f"temperature {calibration.temperature:.4f}, error {calibration.error_after:.2%} "
            f"(before {calibration.error_before:.2%}), images of {calibration.image_source}",
        )
    if reference := manifest.reference:
        yield "reference", f"{reference.images} images of {reference.image_source}, {reference.created:%Y-%m-%d}"


def _architecture_rows(manifest: Manifest) -> Iterator[Row]:
    architecture = manifest.architecture
    size = manifest.preprocessing.height
    yield "parameters", f"{architecture.parameters:,}"
    if not architecture.spec:  # an existing ONNX file tells no spec
        yield "architecture", architecture.name
        return
    spec = replace(parse_spec(architecture.spec, manifest.name), image_size=size)
    yield "architecture", f"{architecture.name}: {describe(spec)}"
    yield "multiply-adds", f"{cost(spec, manifest.outputs.classes).multiply_adds / 1e9:.3f} G an image"


def _input(spec: Preprocessing) -> str:
    resized = "squashed to" if spec.resize_mode == "squash" else "shorter side to"
    numbers = [" ".join(f"{v:g}" for v in values) for values in (spec.mean, spec.std)]
    return (
        f"{spec.height}x{spec.width} {spec.channel_order.upper()}, {resized} {spec.resize} ({spec.interpolation}), "
        f"centre crop, mean {numbers[0]}, std {numbers[1]}"
        + (f", JPEGs scaled at margin {spec.jpeg_scaling.margin:g}" if spec.jpeg_scaling else "")
    )


def _labels(labels: tuple[str, ...]) -> str:
    shown = ", ".join(labels[:_LABELS_SHOWN])
    more = f" and {len(labels) - _LABELS_SHOWN} more" if len(labels) > _LABELS_SHOWN else ""
    return f"{len(labels)}: {shown}{more}"


def _outputs(manifest: Manifest) -> str:
    outputs = manifest.outputs
    parts = [f"logits of {outputs.classes} classes"]
    if outputs.embedding:
        parts.append(f"embedding of {outputs.embedding} numbers")
    if outputs.cam:
        parts.append(f"activation maps of the top {outputs.cam.k} classes, {outputs.cam.height}x{outputs.cam.width}")
    return ", ".join(parts)


def _report_rows(variant: Variant) -> Iterator[Row]:
    if parity := variant.parity:
        yield (
            "  parity",
            f"{'passed' if parity.passed else 'failed'}: top-1 agreement with PyTorch {parity.top1_agreement:.2%}, "
            f"relative error {parity.max_relative_error:.1e}, {parity.images} images of {parity.image_source}",
        )
        if parity.accuracy:
            yield "  accuracy", f"{parity.accuracy.exported:.2%} (PyTorch {parity.accuracy.pytorch:.2%})"
    if gate := variant.gate:
        state = "off" if gate.rule == "off" else "passed" if gate.passed else "failed"
        yield (
            "  gate",
            f"{state}, on {gate.provider}: top-1 agreement with fp32 {gate.top1_agreement:.2%}, "
            f"{gate.images} images of {gate.image_source}",
        )
        if gate.accuracy is not None and gate.baseline_accuracy is not None:
            yield "  accuracy", f"{gate.accuracy:.2%} (fp32 {gate.baseline_accuracy:.2%})"


def checkpoint_rows(checkpoint: Checkpoint) -> Iterator[Row]:
    """What the weights tell, and what their origin does."""
    about = checkpoint.about
    yield "checkpoint", f"{checkpoint.path} ({checkpoint.origin})"
    yield "SHA-256", checkpoint.sha256
    yield "parameters", f"{sum(_trained(checkpoint)):,}"
    named = checkpoint.training.arch if checkpoint.training else about.architecture
    fitting = [named] if named else fitting_architectures(checkpoint)
    for name in fitting:
        spec: AnySpec = about.spec or get_spec(name)
        multiply_adds = cost(spec, checkpoint.classes).multiply_adds
        yield "architecture", f"{name}: {describe(spec)}; {multiply_adds / 1e9:.3f} G multiply-adds an image"
    if not fitting:
        yield "architecture", "none that is known fits"
    labels = checkpoint.training.labels if checkpoint.training else about.labels
    yield "labels", _labels(labels) if labels else f"{checkpoint.classes} classes, no names"
    if checkpoint.aside:
        yield "also in it", ", ".join(checkpoint.aside)
    for note in checkpoint.notes:
        yield "note", note


def _trained(checkpoint: Checkpoint) -> Iterator[int]:
    for key, value in checkpoint.state.items():
        if not key.endswith(("running_mean", "running_var", "num_batches_tracked")):
            yield value.numel()
