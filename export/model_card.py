"""The README.md beside a published model: what it is, where from, how good, and what not to expect of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from export.checkpoints import Training
from model_store.manifest import Accuracy, Manifest, Variant

_LABELS_SHOWN: Final = 20


@dataclass(frozen=True)
class CardNotes:
    """What only a person knows of the model: the data it learnt from, and limits to add to the list."""

    trained_on: str | None = None
    limits: tuple[str, ...] = ()


def render_card(manifest: Manifest, labels: Sequence[str], training: Training | None, notes: CardNotes) -> str:
    """The card as Markdown."""
    sections = [
        f"# {manifest.name}, version {manifest.version}",
        _summary(manifest),
        "## Input",
        _input(manifest),
        "## Labels",
        _labels(labels),
        "## Training",
        _training(training, notes),
        "## Parity with PyTorch",
        _parity(manifest.variants),
    ]
    for variant in manifest.variants:
        if variant.parity.accuracy:
            sections += [
                f"## Accuracy, {variant.precision}",
                _accuracy(variant.parity.accuracy, variant.parity.images, variant.parity.image_source),
            ]
    sections += ["## Intended use", _use(manifest), "## Known limits", _limits(manifest, labels, notes)]
    return "\n\n".join(sections) + "\n"


def _summary(manifest: Manifest) -> str:
    architecture, source = manifest.architecture, manifest.source
    return _bullets(
        [
            f"Architecture: {architecture.name}, {architecture.parameters:,} parameters",
            f"Outputs: {manifest.outputs.classes} logits, an embedding of {manifest.outputs.embedding} numbers"
            + (f", activation maps of the top {manifest.outputs.cam.k} classes" if manifest.outputs.cam else ""),
            f"Weights: `{_inline(source.file)}` ({source.origin}), SHA-256 `{source.sha256}`",
            f"Exported: {manifest.created:%Y-%m-%d}, ONNX opset {manifest.opset}",
        ]
    )


def _input(manifest: Manifest) -> str:
    spec = manifest.preprocessing
    return (
        f"RGB images of any size. The shorter side is resized to {spec.resize} pixels ({spec.interpolation}), "
        f"and the middle {spec.width}x{spec.height} is used. "
        f"Mean {_numbers(spec.mean)} and standard deviation {_numbers(spec.std)}, of values from 0 to 1, "
        "are inside the graph."
    )


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _labels(labels: Sequence[str]) -> str:
    shown = ", ".join(_inline(label) for label in labels[:_LABELS_SHOWN])
    return shown + (f" and {len(labels) - _LABELS_SHOWN} more, in `labels.txt`" if len(labels) > _LABELS_SHOWN else "")


def _inline(text: str) -> str:
    """``text`` from outside, unable to start Markdown or HTML of its own."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in text)


def _training(training: Training | None, notes: CardNotes) -> str:
    lines = [f"Data: {notes.trained_on.rstrip('.')}." if notes.trained_on else "Data: not stated at export."]
    if training is None:
        lines.append("Recipe: unknown to the exporter; ask whoever trained the checkpoint.")
        return "\n\n".join(lines)
    lines.append(f"Recipe of `python -m export train`, {training.epoch} epochs done:")
    rows = [(key.replace("_", " "), f"{value}") for key, value in training.recipe.items()]
    return "\n\n".join([*lines, _table(("setting", "value"), rows)])


def _parity(variants: Sequence[Variant]) -> str:
    rows = [
        (
            variant.precision,
            f"`{variant.file}`, {variant.bytes / 1e6:.1f} MB",
            f"{variant.parity.images} from {_inline(variant.parity.image_source)}",
            f"{variant.parity.top1_agreement:.2%}",
            f"{variant.parity.max_absolute_error:.1e}",
            f"{variant.parity.max_relative_error:.1e}",
        )
        for variant in variants
    ]
    head = ("variant", "file", "images", "same top class", "largest logit error", "relative")
    return _table(head, rows) + "\n\nONNX Runtime on its CPU provider against PyTorch in fp32, on the same pixels."


def _accuracy(accuracy: Accuracy, images: int, source: str) -> str:
    overall = (
        f"Top-1 on {images:,} labelled images of {_inline(source)}: **{accuracy.exported:.2%}** "
        f"(PyTorch: {accuracy.pytorch:.2%})."
    )
    rows = [(_inline(label), f"{share:.1%}") for label, share in accuracy.by_class.items()]
    return f"{overall}\n\n{_table(('class', 'top-1'), rows)}"


def _use(manifest: Manifest) -> str:
    return (
        f"Sorting images into the {manifest.outputs.classes} classes above, comparing them by embedding, and showing "
        "which part of an image speaks for a class. Not for decisions about people, nor where a wrong answer does harm."
    )


def _limits(manifest: Manifest, labels: Sequence[str], notes: CardNotes) -> str:
    spec = manifest.preprocessing
    limits = [
        f'There are {len(labels)} classes and no "none of them": an image of anything else gets one of these labels '
        "all the same, often with a high probability.",
        "Accuracy holds for images like those it was measured on; elsewhere, measure again.",
        "Probabilities are not calibrated.",
    ]
    if max(spec.width, spec.height) < 64:
        limits.insert(
            0,
            f"The network sees {spec.width}x{spec.height} pixels, whatever the image's size: "
            "small or thin things in a photo are lost.",
        )
    return _bullets([*limits, *notes.limits])


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
