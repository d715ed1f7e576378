"""Measure a stored model again: its files, its accuracy, its variants, and PyTorch where the checkpoint is at hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from export.checkpoints.checkpoint import read_checkpoint
from export.checkpoints.fitting import load_network
from export.errors import ExportError
from export.images.image_sets import ImageSet, real_images
from export.networks.architecture import parse_spec
from export.parity import measure, onnx_runner
from export.reports.model_card import ONNX
from export.torch_reference import torch_reference
from export.variants.gate import Thresholds, compare, cpu_logits, judge, logits_of
from export.variants.gate_providers import ProviderMissing, open_logits
from model_store.manifest import Variant
from model_store.reports import ROUNDING
from model_store.store import StoreError
from model_store.stored_model import StoredModel


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what, whether it is as it should be, and the figures."""

    subject: str
    passed: bool
    text: str


@dataclass(frozen=True)
class Original:
    """The checkpoint that a model was exported from, and what the export was told of it."""

    path: Path
    origin: str | None = None
    weights: str | None = None


def verify(
    stored: StoredModel, source: Path, original: Original | None, thresholds: Thresholds, console: Console
) -> Iterator[Finding]:
    """Findings on ``stored`` with the images in ``source``, one after another.

    fp32 is compared with PyTorch only where ``original``, the checkpoint that it
    was exported from, is given; else with the accuracy in its manifest. The other
    variants are compared with fp32 where their gate was, on the provider that it
    names; the finding says so where that one cannot be had here.
    ``ExportError`` where nothing can be measured.
    """
    try:
        stored.verify()
    except StoreError as error:
        yield Finding("files", False, str(error))
        return  # what was changed is not run
    yield Finding("files", True, f"{len(stored.manifest.files)}, each with the manifest's SHA-256")
    fp32 = stored.variant("fp32")
    images = real_images(source, stored.manifest.preprocessing, stored.labels())
    note = "labelled" if images.targets else f"no accuracy: {images.note}"
    yield Finding("images", True, f"{images.count} of {images.name}, {note}")
    yield _accuracy(stored, fp32, images, thresholds)
    if original:
        yield _parity(stored, fp32, images, original, console)
    for variant in stored.manifest.variants:
        if variant.precision != "fp32":
            yield _variant(stored, fp32, variant, images, thresholds, console)


def _accuracy(stored: StoredModel, fp32: Variant, images: ImageSet, thresholds: Thresholds) -> Finding:
    logits = logits_of(images.read(), cpu_logits(stored.path(fp32)))
    if not np.isfinite(logits).all():
        return Finding("fp32", False, "logits that are not finite")
    if images.targets is None:
        return Finding("fp32", True, "all logits are finite")
    found = float((logits.argmax(axis=1) == np.array(images.targets)).mean())
    recorded = fp32.parity.accuracy if fp32.parity else None
    if recorded is None:
        return Finding("fp32", True, f"top-1 {found:.2%}; the manifest has none to compare with")
    passed = recorded.exported - found <= thresholds.max_accuracy_drop + ROUNDING
    return Finding("fp32", passed, f"top-1 {found:.2%}, in the manifest {recorded.exported:.2%}")


def _parity(stored: StoredModel, fp32: Variant, images: ImageSet, original: Original, console: Console) -> Finding:
    manifest = stored.manifest
    if manifest.source.origin == ONNX:
        raise ExportError(f"{manifest.name}: made from an ONNX file, so there is no checkpoint to compare it with")
    checkpoint = read_checkpoint(original.path, original.origin, original.weights)
    if checkpoint.sha256 != manifest.source.sha256:
        raise ExportError(
            f"{original.path}: not the checkpoint that {manifest.name} was exported from; its SHA-256 differs"
        )
    spec = parse_spec(manifest.architecture.spec, str(stored.folder))
    net = load_network(checkpoint, manifest.architecture.name, spec)
    verdict = measure(
        images,
        torch_reference(net, manifest.preprocessing),
        onnx_runner(stored.path(fp32)),
        stored.labels(),
        console,
    )
    figures = (
        f"top-1 agreement {verdict.parity.top1_agreement:.2%}, relative error {verdict.parity.max_relative_error:.1e}"
    )
    return Finding("PyTorch", not verdict.reasons, "; ".join((figures, *verdict.reasons)))


def _variant(
    stored: StoredModel,
    fp32: Variant,
    variant: Variant,
    images: ImageSet,
    thresholds: Thresholds,
    console: Console,
) -> Finding:
    provider = variant.gate.provider if variant.gate else "cpu"
    try:
        run = open_logits(stored.path(variant), provider, variant.precision)
    except ProviderMissing as error:
        return Finding(variant.precision, True, f"not measured: {error}")
    comparison = compare(images, cpu_logits(stored.path(fp32)), run, console)
    verdict = judge(comparison, stored.labels(), thresholds, provider=provider)
    gate = verdict.gate
    figures = [f"agreement with fp32 {gate.top1_agreement:.2%} on {provider}"]
    if gate.accuracy is not None and gate.baseline_accuracy is not None:
        figures.insert(0, f"top-1 {gate.accuracy:.2%} (fp32 {gate.baseline_accuracy:.2%})")
    if not variant.gated:
        figures.append("published ungated")
    return Finding(variant.precision, not verdict.reasons, "; ".join((", ".join(figures), *verdict.reasons)))
