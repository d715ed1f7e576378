"""The README.md beside a published model: what it is, where from, how good, and what not to expect of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from export.checkpoints.training import Training
from export.reports.markdown import table
from model_store.manifest import Accuracy, Calibration, JpegScaling, Manifest, Parity, Reference, Variant

CARD_FILE: Final = "README.md"
# The origin of models that were made from an ONNX file.
ONNX: Final = "onnx"
_LABELS_SHOWN: Final = 20
_UNCALIBRATED: Final = "Probabilities are not calibrated."


@dataclass(frozen=True)
class CardNotes:
    """What only a person knows of the model: the data it learnt from, and limits to add to the list."""

    trained_on: str | None = None
    limits: tuple[str, ...] = ()


def original(manifest: Manifest) -> str:
    """What the exported file was compared with."""
    return "the given file" if manifest.source.origin == ONNX else "PyTorch"


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
        f"## Parity with {original(manifest)}",
        _parity(manifest),
    ]
    for variant in manifest.variants:
        if variant.parity and variant.parity.accuracy:
            sections += [
                f"## Accuracy, {variant.precision}",
                _accuracy(variant.parity.accuracy, variant.parity, original(manifest)),
            ]
    if any(variant.gate for variant in manifest.variants):
        sections += ["## Other precisions", _gates(manifest.variants)]
    if manifest.calibration:
        sections += ["## Calibration", _calibration(manifest.calibration)]
    if manifest.reference:
        sections += ["## Reference", _reference(manifest.reference)]
    sections += ["## Intended use", _use(manifest), "## Known limits", _limits(manifest, labels, notes)]
    return "\n\n".join(sections) + "\n"


def renew_card(previous: str, manifest: Manifest, labels: Sequence[str]) -> str:
    """The card of a later version of the same network: ``previous`` knows of the training and the limits."""
    known = _by_title(previous)
    fresh = _by_title(render_card(manifest, labels, None, CardNotes()))
    kept = {title: known[title] for title in ("## Training", "## Known limits") if title in known}
    if manifest.calibration and "## Known limits" in kept:
        lines = kept["## Known limits"].splitlines()
        kept["## Known limits"] = "\n".join(line for line in lines if line != f"- {_UNCALIBRATED}")
    return "\n\n".join(f"{title}\n\n{text}" for title, text in (fresh | kept).items()) + "\n"


def _by_title(card: str) -> dict[str, str]:
    """The card's sections, by their title lines."""
    parts = re.split(r"^(##? .*)$", card, flags=re.MULTILINE)[1:]
    return {title: text.strip() for title, text in zip(parts[::2], parts[1::2], strict=True)}


def _summary(manifest: Manifest) -> str:
    architecture, source = manifest.architecture, manifest.source
    return _bullets(
        [
            f"Architecture: {architecture.name}, {architecture.parameters:,} parameters",
            f"Outputs: {manifest.outputs.classes} logits"
            + (f", an embedding of {manifest.outputs.embedding} numbers" if manifest.outputs.embedding else "")
            + (f", activation maps of the top {manifest.outputs.cam.k} classes" if manifest.outputs.cam else ""),
            f"Weights: `{_inline(source.file)}` ({source.origin}), SHA-256 `{source.sha256}`",
            f"Exported: {manifest.created:%Y-%m-%d}, ONNX opset {manifest.opset}",
        ]
    )


def _input(manifest: Manifest) -> str:
    spec = manifest.preprocessing
    if spec.resize_mode == "squash" and spec.resize == min(spec.width, spec.height):
        seen = f"The whole image is resized to {spec.width}x{spec.height} pixels ({spec.interpolation}). "
    else:
        squashed = ", squashed to the input's proportions" if spec.resize_mode == "squash" else ""
        seen = (
            f"The shorter side is resized to {spec.resize} pixels ({spec.interpolation}){squashed}, "
            f"and the middle {spec.width}x{spec.height} is used. "
        )
    order = " in the order BGR" if spec.channel_order == "bgr" else ""
    return (
        f"RGB images of any size. {seen}"
        f"Mean {_numbers(spec.mean)} and standard deviation {_numbers(spec.std)}, of values from 0 to 1{order}, "
        "are inside the graph." + (_scaling(spec.jpeg_scaling) if spec.jpeg_scaling else "")
    )


def _scaling(scaling: JpegScaling) -> str:
    gate = scaling.gate
    return (
        f"\n\nJPEGs are decoded at 1/2, 1/4 or 1/8 of their size where that leaves at least {scaling.margin:g} times "
        f"the side that the resize needs. On {gate.images} images of {_inline(gate.image_source)} the top class stayed "
        f"the same on {gate.top1_agreement:.2%} or more."
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
    return "\n\n".join([*lines, table(("setting", "value"), rows)])


def _parity(manifest: Manifest) -> str:
    rows = [
        (
            variant.precision,
            _file(variant),
            f"{parity.images} from {_inline(parity.image_source)}",
            f"{parity.top1_agreement:.2%}",
            f"{parity.max_absolute_error:.1e}",
            f"{parity.max_relative_error:.1e}",
        )
        for variant in manifest.variants
        if (parity := variant.parity)
    ]
    head = ("variant", "file", "images", "same top class", "largest logit error", "relative")
    given = "in ONNX Runtime too" if manifest.source.origin == ONNX else "in fp32"
    text = f"ONNX Runtime on its CPU provider against {original(manifest)} {given}, on the same pixels."
    return f"{table(head, rows)}\n\n{text}"


def _file(variant: Variant) -> str:
    return f"`{variant.file}`, {variant.bytes / 1e6:.1f} MB"


def _gates(variants: Sequence[Variant]) -> str:
    """How the variants that are not fp32 were made, and how they compare with it."""
    rows = [
        (
            variant.precision,
            _file(variant),
            _made(variant),
            f"{gate.images:,} from {_inline(gate.image_source)}",
            f"{gate.top1_agreement:.2%}",
            "not measured" if gate.accuracy is None else f"{gate.accuracy:.2%} (fp32: {gate.baseline_accuracy:.2%})",
            "**ungated**" if gate.rule == "off" else f"passed, by {gate.rule}",
            gate.provider,
            f"[page]({variant.report.file})" if variant.report else "",
        )
        for variant in variants
        if (gate := variant.gate)
    ]
    head = ("variant", "file", "calibration", "compared on", "same top class", "top-1", "gate", "run on", "report")
    text = (
        "ONNX Runtime on the provider named, against fp32 on its CPU provider. bf16 is the fp32 file, run otherwise. "
        "An ungated variant is for benchmarks."
    )
    return f"{table(head, rows)}\n\n{text}"


def _made(variant: Variant) -> str:
    how = variant.quantization
    if how is None:
        return "none"
    kept = f", {len(how.float_nodes)} nodes kept in fp32" if how.float_nodes else ""
    return f"{how.method}, {how.calibration_images:,} images from {_inline(how.calibration_source)}{kept}"


def _accuracy(accuracy: Accuracy, parity: Parity, compared: str) -> str:
    overall = (
        f"Top-1 on {parity.images:,} labelled images of {_inline(parity.image_source)}: **{accuracy.exported:.2%}** "
        f"({compared}: {accuracy.pytorch:.2%})."
    )
    rows = [(_inline(label), f"{share:.1%}") for label, share in accuracy.by_class.items()]
    return f"{overall}\n\n{table(('class', 'top-1'), rows)}"


def _calibration(found: Calibration) -> str:
    source = _inline(found.image_source)
    measured = f"{found.held_out:,} others" if found.held_out else "the same"
    page = f" ([page]({found.report.file}))" if found.report else ""
    return (
        f"Probabilities are softmax(logits / {found.temperature:.4f}): the temperature was fitted on {found.images:,} "
        f"images of {source}. On {measured} the expected calibration error ({found.bins} bins, fp32) is "
        f"**{found.error_after:.2%}** with it and {found.error_before:.2%} without{page}. No answer changes.\n\n"
        f"{100 * found.coverage:g}% of the images have an energy, logsumexp(logits), of at least {found.energy:.3f}, "
        f"and a largest logit of at least {found.max_logit:.3f}: what has less looks like none of the classes. All of "
        "it holds for images like those it was measured on."
    )


def _reference(found: Reference) -> str:
    vectors = " and of embeddings" if found.embedding else ""
    return (
        f"Images that come are compared with {found.images:,} of {_inline(found.image_source)} "
        f"({found.created:%Y-%m-%d}), by histograms of predicted classes, confidence, entropy and energy{vectors}. "
        "Of those images nothing else is kept."
    )


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
    ]
    if manifest.calibration is None:
        limits.append(_UNCALIBRATED)
    if max(spec.width, spec.height) < 64:
        limits.insert(
            0,
            f"The network sees {spec.width}x{spec.height} pixels, whatever the image's size: "
            "small or thin things in a photo are lost.",
        )
    return _bullets([*limits, *notes.limits])


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
