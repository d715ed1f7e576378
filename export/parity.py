"""Does the exported file compute what PyTorch computes? The gate before publishing.

Both sides see the same uint8 pixels. The reference normalises them by itself,
outside the graph, so a wrong mean or channel order in the graph shows too. The
file runs in ONNX Runtime on its CPU provider with batches of 1, 3 and 8. Of an
ONNX file that was given, the reference is that file: see ``export.graphs.imported``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from rich.console import Console

from export.errors import ExportError
from export.graphs.contract import INPUT
from export.images.image_sets import ImageSet, Pixels
from export.reports.progress import shown
from model_store.manifest import Accuracy, Parity
from model_store.onnx_session import open_onnx

Floats = npt.NDArray[np.float32]

BATCH_SIZES: Final = (1, 3, 8)
_CHUNK: Final = 4 * sum(BATCH_SIZES)


class ParityError(ExportError):
    """The exported file does not compute what PyTorch computes; the message says by how much."""


@dataclass(frozen=True)
class Reference:
    """What is expected, in fp32: logits ``[n, classes]``, embedding ``[n, D]``, all classes' maps, the head's bias.

    None where the exported file has no such output.
    """

    logits: Floats
    embedding: Floats | None
    maps: Floats | None
    bias: Floats | None


@dataclass(frozen=True)
class Exported:
    """The file's results: logits, embedding and the top classes' maps ``[n, k, h, w]`` (None: no such output)."""

    logits: Floats
    embedding: Floats | None
    cam: Floats | None


@dataclass(frozen=True)
class Limits:
    """What passes.

    relative_error -- of logits, embedding and maps, to the largest magnitude of the image's.
    top1_agreement -- share of images with PyTorch's top class.
    tie            -- another top class counts as agreeing if PyTorch's logit for it is this
                      close to its largest, relative as above: rounding may decide such an image.
    """

    relative_error: float = 1e-4
    top1_agreement: float = 1.0
    tie: float = 1e-4


FP32: Final = Limits()


@dataclass(frozen=True)
class Errors:
    """The worst of the images compared so far. ``cam`` includes how far a map's mean plus bias is from the logit."""

    absolute: float = 0.0
    logits: float = 0.0
    embedding: float = 0.0
    cam: float = 0.0

    def worst(self, other: Errors) -> Errors:
        return Errors(
            max(self.absolute, other.absolute),
            max(self.logits, other.logits),
            max(self.embedding, other.embedding),
            max(self.cam, other.cam),
        )


@dataclass(frozen=True)
class Verdict:
    """The report for the manifest, all errors, and why it failed (nothing where it passed)."""

    parity: Parity
    errors: Errors
    reasons: tuple[str, ...]


def open_session(model: Path | bytes) -> ort.InferenceSession:
    """``model`` in ONNX Runtime on the CPU provider; ``ParityError`` where it cannot be loaded."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Threads that spin while they wait would take the cores from PyTorch, which runs in turn with them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return open_onnx(model, options, ["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no other public base
        raise ParityError(f"ONNX Runtime cannot load the file: {error}") from error


def onnx_runner(path: Path) -> Callable[[Pixels], Exported]:
    """The file at ``path`` in ONNX Runtime on the CPU provider; ``ParityError`` where it cannot be loaded."""
    session = open_session(path)
    names = [output.name for output in session.get_outputs()]

    def run(pixels: Pixels) -> Exported:
        try:
            found = dict(zip(names, session.run(None, {INPUT: pixels}), strict=True))
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ParityError(f"ONNX Runtime cannot run the file on {len(pixels)} images: {reason}") from error
        embedding, cam = found.get("embedding"), found.get("cam")
        return Exported(
            _fp32(found["logits"]),
            None if embedding is None else _fp32(embedding),
            None if cam is None else _fp32(cam),
        )

    return run


def _fp32(values: npt.NDArray[np.floating]) -> Floats:
    if not np.isfinite(values).all():
        raise ParityError("the exported file gives values that are not finite")
    return values.astype(np.float32)


def _relative(found: Floats, expected: Floats, scale: Floats | None = None) -> float:
    """The largest error, each image's relative to its ``scale`` (``expected`` where not given)."""
    n = len(expected)
    if n == 0:
        return 0.0
    largest = np.abs(expected if scale is None else scale).reshape(n, -1).max(axis=1)
    errors = np.abs(found - expected).reshape(n, -1).max(axis=1)
    return float((errors / np.maximum(largest, np.finfo(np.float32).tiny)).max())


def compare(reference: Reference, exported: Exported) -> Errors:
    """The worst errors over the images of one batch; a pure function."""
    cam = embedding = 0.0
    if exported.embedding is not None and reference.embedding is not None:
        embedding = _relative(exported.embedding, reference.embedding)
    if exported.cam is not None and reference.maps is not None and reference.bias is not None:
        # Stable, as the graph's TopK: of equal logits, the lower class first.
        top = np.argsort(-exported.logits, axis=1, kind="stable")[:, : exported.cam.shape[1]]
        maps = np.take_along_axis(reference.maps, top[:, :, None, None], axis=1)
        logits = np.take_along_axis(exported.logits, top, axis=1)
        rebuilt = exported.cam.mean(axis=(2, 3)) + reference.bias[top]
        cam = max(_relative(exported.cam, maps), _relative(rebuilt, logits, scale=exported.logits))
    return Errors(
        absolute=float(np.abs(exported.logits - reference.logits).max()),
        logits=_relative(exported.logits, reference.logits),
        embedding=embedding,
        cam=cam,
    )


def agreement(expected: Floats, found: Floats, tie: float) -> npt.NDArray[np.bool_]:
    """For each image, whether the top class of the logits ``found`` is ``expected``'s, ties aside."""
    top = found.argmax(axis=1)
    chosen = np.take_along_axis(expected, top[:, None], axis=1)[:, 0]
    return np.asarray(chosen >= expected.max(axis=1) - tie * np.abs(expected).max(axis=1))


@dataclass
class _Tally:
    """What is kept of each image: a few numbers, so that large sets fit."""

    errors: Errors = field(default_factory=Errors)
    agrees: list[bool] = field(default_factory=list)
    expected: list[int] = field(default_factory=list)
    found: list[int] = field(default_factory=list)


def measure(
    images: ImageSet,
    reference: Callable[[Pixels], Reference],
    exported: Callable[[Pixels], Exported],
    labels: Sequence[str],
    console: Console,
    limits: Limits = FP32,
) -> Verdict:
    """Run both on ``images`` and judge; accuracy is measured where the images are labelled."""
    tally = _Tally()
    for chunk in _chunks(shown(images.read(), f"comparing on {images.name}", images.count, console)):
        # Too few images for every batch size are gone through again; the report counts each once.
        pixels = chunk[np.arange(max(len(chunk), sum(BATCH_SIZES))) % len(chunk)]
        expected, found = reference(pixels), _in_batches(exported, pixels)
        tally.errors = tally.errors.worst(compare(expected, found))
        n = len(chunk)
        tally.agrees += agreement(expected.logits, found.logits, limits.tie)[:n].tolist()
        tally.expected += expected.logits.argmax(axis=1)[:n].tolist()
        tally.found += found.logits.argmax(axis=1)[:n].tolist()
    return _judge(images, tally, labels, limits)


def _chunks(images: Iterable[Pixels]) -> Iterator[Pixels]:
    """Stacks of images, as many as PyTorch runs at once."""
    chunk: list[Pixels] = []
    for image in images:
        chunk.append(image)
        if len(chunk) == _CHUNK:
            yield np.stack(chunk)
            chunk = []
    if chunk:
        yield np.stack(chunk)


def _in_batches(run: Callable[[Pixels], Exported], pixels: Pixels) -> Exported:
    """``run`` over ``pixels`` in batches of 1, 3, 8, 1, 3, 8 and so on."""
    parts: list[Exported] = []
    start = 0
    while start < len(pixels):
        for size in BATCH_SIZES:
            if start + size <= len(pixels):
                parts.append(run(pixels[start : start + size]))
                start += size
    return Exported(
        np.concatenate([part.logits for part in parts]),
        _joined([part.embedding for part in parts]),
        _joined([part.cam for part in parts]),
    )


def _joined(parts: Sequence[Floats | None]) -> Floats | None:
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if there else None


def _judge(images: ImageSet, tally: _Tally, labels: Sequence[str], limits: Limits) -> Verdict:
    share = float(np.mean(tally.agrees))
    errors = tally.errors
    reasons = [
        f"{name} differ by {error:.1e} (limit {limits.relative_error:.0e})"
        for name, error in (("logits", errors.logits), ("embeddings", errors.embedding), ("maps", errors.cam))
        if not error <= limits.relative_error
    ]
    if share < limits.top1_agreement:
        reasons.append(f"top classes agree on {share:.2%} of the images (limit {limits.top1_agreement:.2%})")
    parity = Parity(
        images=len(tally.agrees),
        image_source=images.name,
        batch_sizes=list(BATCH_SIZES),
        top1_agreement=share,
        max_absolute_error=errors.absolute,
        max_relative_error=errors.logits,
        passed=not reasons,
        accuracy=_accuracy(images.targets, tally, labels) if images.targets else None,
    )
    return Verdict(parity, errors, tuple(reasons))


def _accuracy(targets: Sequence[int], tally: _Tally, labels: Sequence[str]) -> Accuracy:
    """Top-1 accuracy of both sides, and of the exported file by class."""
    truth, expected, found = np.array(targets), np.array(tally.expected), np.array(tally.found)
    right = found == truth
    by_class = {label: float(right[truth == i].mean()) for i, label in enumerate(labels) if (truth == i).any()}
    return Accuracy(pytorch=float((expected == truth).mean()), exported=float(right.mean()), by_class=by_class)
