"""``python -m export inspect``: what a stored model or a checkpoint is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click

from export.checkpoints.checkpoint import Checkpoint, read_checkpoint
from export.checkpoints.fitting import fitting_architectures
from export.commands.architectures import describe
from export.commands.options import ModelReference, place, store_option, version_json
from export.errors import ExportError
from export.networks import specs
from export.networks.architecture import AnySpec, parse_spec
from export.networks.costs import cost
from export.reports.model_card import original
from model_store.command_line.options import json_option, print_json
from model_store.locations import open_store
from model_store.manifest import Manifest, Preprocessing, Variant
from model_store.store import ModelStore
from model_store.stored_model import StoredModel

_LABELS_SHOWN: Final = 10
Row = tuple[str, str]


@click.command("inspect")
@click.argument("what", metavar="MODEL_OR_CHECKPOINT")
@store_option
@json_option
def inspect_command(what: str, store: str, as_json: bool) -> None:
    """Print what a model in the store, or a checkpoint, is.

    MODEL_OR_CHECKPOINT is NAME or NAME@VERSION, or the path of a checkpoint.

    \b
    Examples:
      python -m export inspect cifar10-resnet16
      python -m export inspect resnet50.pth
    """
    path = Path(what)
    if path.exists():
        checkpoint = read_checkpoint(path)
        found, rows = (_checkpoint_json(checkpoint), ()) if as_json else ({}, checkpoint_rows(checkpoint))
    else:
        models, stored = _stored(what, store)
        found, rows = (_model_json(models, stored), ()) if as_json else ({}, model_rows(stored, place(models, stored)))
    if as_json:
        print_json(found)
    else:
        click.echo("\n".join(f"{key:<16}{value}" for key, value in rows))


def _stored(reference: str, location: str) -> tuple[ModelStore, StoredModel]:
    if "/" in reference or Path(reference).suffix in (".pth", ".pt", ".th", ".safetensors", ".pt2", ".ckpt", ".bin"):
        raise ExportError(f"{reference}: no such file")
    name, version = ModelReference().convert(reference, None, None)
    store = open_store(location)
    return store, store.resolve(name, version)


def _model_json(store: ModelStore, stored: StoredModel) -> dict[str, Any]:
    manifest = stored.manifest
    return version_json(store, stored) | {
        "created": manifest.created.isoformat(),
        "parameters": manifest.architecture.parameters,
        "source": {"file": manifest.source.file, "origin": manifest.source.origin, "sha256": manifest.source.sha256},
        "labels": list(stored.labels()),
    }


def _checkpoint_json(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "checkpoint": str(checkpoint.path),
        "origin": checkpoint.origin,
        "sha256": checkpoint.sha256,
        "parameters": sum(_trained(checkpoint)),
        "architectures": _fitting(checkpoint),
        "classes": checkpoint.classes,
        "labels": list(_named(checkpoint) or ()),
        "notes": list(checkpoint.notes),
    }


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
        yield from _report_rows(variant, original(manifest))
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


def _report_rows(variant: Variant, compared: str) -> Iterator[Row]:
    if parity := variant.parity:
        yield (
            "  parity",
            f"{'passed' if parity.passed else 'failed'}: top-1 agreement with {compared} {parity.top1_agreement:.2%}, "
            f"relative error {parity.max_relative_error:.1e}, {parity.images} images of {parity.image_source}",
        )
        if parity.accuracy:
            yield "  accuracy", f"{parity.accuracy.exported:.2%} ({compared} {parity.accuracy.pytorch:.2%})"
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
    yield "checkpoint", f"{checkpoint.path} ({checkpoint.origin})"
    yield "SHA-256", checkpoint.sha256
    yield "parameters", f"{sum(_trained(checkpoint)):,}"
    fitting = _fitting(checkpoint)
    for name in fitting:
        # A checkpoint may name any network, or a file; none is opened at its word.
        spec: AnySpec | None = checkpoint.about.spec or specs.SPECS.get(name)
        if spec is None:
            yield "architecture", name
            continue
        multiply_adds = cost(spec, checkpoint.classes).multiply_adds
        yield "architecture", f"{name}: {describe(spec)}; {multiply_adds / 1e9:.3f} G multiply-adds an image"
    if not fitting:
        yield "architecture", "none that is known fits"
    if len(fitting) > 1:
        first = f"the first, as in {checkpoint.origin}, unless --arch says another"
        none = "none of itself, as they have the same shapes: name --arch"
        yield "export takes", first if checkpoint.common else none
    labels = _named(checkpoint)
    yield "labels", _labels(labels) if labels else f"{checkpoint.classes} classes, no names"
    if checkpoint.aside:
        yield "also in it", ", ".join(checkpoint.aside)
    for note in checkpoint.notes:
        yield "note", note


def _fitting(checkpoint: Checkpoint) -> list[str]:
    """The architecture that the checkpoint names, else all that fit."""
    named = checkpoint.training.arch if checkpoint.training else checkpoint.about.architecture
    return [named] if named else list(fitting_architectures(checkpoint))


def _named(checkpoint: Checkpoint) -> tuple[str, ...] | None:
    return checkpoint.training.labels if checkpoint.training else checkpoint.about.labels


def _trained(checkpoint: Checkpoint) -> Iterator[int]:
    for key, value in checkpoint.state.items():
        if not key.endswith(("running_mean", "running_var", "num_batches_tracked")):
            yield value.numel()
