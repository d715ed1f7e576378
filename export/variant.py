"""One variant from start to end: calibrate, convert, compare with fp32, publish a new version or refuse.

A published version is never changed: what passes goes into the next one, beside
the fp32 file and the other variants of the version it was made from.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from rich.console import Console

from export.candidates import Candidate, Candidates, Rules
from export.errors import ExportError
from export.gate import GateError, Thresholds
from export.gate_report import Findings, render_report
from export.image_sets import ImageSet
from export.model_card import CARD_FILE, renew_card
from export.progress import shown
from export.quantize import calibrate
from export.subsets import NamedImages, Source
from model_store.manifest import Variant
from model_store.reports import CalibrationMethod, Quantization
from model_store.store import ModelStore, StoredModel, describe_file

_PROBE_IMAGES: Final = 16
_FEWEST: Final = 100  # left over from the calibration, to tell the agreement


@dataclass(frozen=True)
class VariantRequest:
    """What to make of which model.

    model     -- NAME or NAME@VERSION in ``store``.
    calibrate -- images that the ranges are taken from, ``calibration_images`` of them, evenly spread.
    validate  -- images for the gate; None takes the rest of ``calibrate``.
    method    -- of the calibration; fp16 only looks for values that it cannot hold, by minmax.
    report    -- where the page goes besides the store; None: to the current folder, if the variant is refused.
    """

    model: str
    store: Path
    calibrate: Path
    precision: Literal["int8", "fp16"] = "int8"
    validate: Path | None = None
    method: CalibrationMethod = "percentile"
    calibration_images: int = 512
    rules: Rules = field(default_factory=lambda: Rules(Thresholds()))
    report: Path | None = None


@dataclass(frozen=True)
class _Images:
    """Which images do what, and what the reader of the report should know of them."""

    calibration: ImageSet
    probe: ImageSet
    validation: NamedImages
    notes: tuple[str, ...]


def make_variant(request: VariantRequest, console: Console) -> StoredModel:
    """Make, judge and publish; ``GateError`` names the report where the variant is refused."""
    if request.report and not request.report.parent.is_dir():
        raise ExportError(f"{request.report}: there is no such folder for the report")
    store = ModelStore(request.store)
    stored = _resolve(store, request.model)
    images = _choose(request, stored)
    notes = [*images.notes]
    _say(console, *notes)
    candidates = _candidates(request, stored, images, console)
    if candidates.too_large:
        notes.append(f"{len(candidates.too_large)} nodes stay in fp32, as their values are too large for fp16")
        _say(console, notes[-1])
    candidate = candidates.best(stored.labels(), request.rules)
    quantization = _quantization(request, images.calibration, candidate)
    report = _report(request, stored, candidate, quantization, images.validation.files, notes)
    if candidate.verdict.reasons:
        page = request.report or Path(f"{stored.manifest.name}-{request.precision}-report.html")
        page.write_text(report, encoding="utf-8", newline="\n")
        raise GateError(f"{request.precision} is refused: {'; '.join(candidate.verdict.reasons)}; report: {page}")
    if request.report:
        request.report.write_text(report, encoding="utf-8", newline="\n")
    return _publish(store, stored, request.precision, candidate, quantization, report)


def _say(console: Console, *notes: str) -> None:
    for note in notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def _resolve(store: ModelStore, model: str) -> StoredModel:
    stored = store.find(model)
    stored.verify()
    return stored


def _choose(request: VariantRequest, stored: StoredModel) -> _Images:
    """Some images to calibrate with, others for the gate."""
    preprocessing, labels = stored.manifest.preprocessing, stored.labels()
    source = Source.open(request.calibrate, preprocessing, labels)
    calibration = source.spread(request.calibration_images)
    notes = []
    if request.validate is not None:
        validation = Source.open(request.validate, preprocessing, labels).validation()
        if validation.images.note:
            notes.append(f"{validation.images.name}: no accuracy is measured: {validation.images.note}")
    elif (rest := source.without(calibration.files)) and rest.images.count >= _FEWEST:
        validation = rest
        notes.append("no --validate: the gate judges agreement, on images of --calibrate that were not used for it")
    else:
        validation = source.unlabelled()
        notes.append("no --validate, and too few images to set some apart: the gate sees those of the calibration")
    if note := _coarse(validation.images, request.rules):
        notes.append(note)
    return _Images(calibration.images, source.spread(_PROBE_IMAGES).images, validation, tuple(notes))


def _coarse(images: ImageSet, rules: Rules) -> str | None:
    """A word of caution where a single image decides."""
    thresholds = rules.thresholds
    allowed = 1 - thresholds.min_agreement if images.targets is None else thresholds.max_accuracy_drop
    if rules.off or not 0 < allowed * images.count < 1:
        return None
    return f"with {images.count} images, one changed answer is more than the gate allows: take more to know better"


def _candidates(request: VariantRequest, stored: StoredModel, images: _Images, console: Console) -> Candidates:
    """Calibrates; the candidates are made when they are asked for."""
    file, chosen, method = stored.path(stored.variant("fp32")), images.calibration, _method(request)
    console.print(f"calibrating by {method} on {chosen.count} images of {chosen.name}", markup=False, highlight=False)
    calibrated = calibrate(file, method, shown(chosen.read(), "calibrating", chosen.count, console))
    validation = images.validation.images
    return Candidates(stored.manifest, file, request.precision, calibrated, validation, images.probe, console)


def _method(request: VariantRequest) -> CalibrationMethod:
    return request.method if request.precision == "int8" else "minmax"


def _quantization(request: VariantRequest, images: ImageSet, candidate: Candidate) -> Quantization:
    return Quantization(
        method=_method(request),
        calibration_images=images.count,
        calibration_source=images.name,
        float_nodes=sorted(candidate.float_nodes),
    )


def _report(
    request: VariantRequest,
    stored: StoredModel,
    candidate: Candidate,
    quantization: Quantization,
    files: Sequence[str],
    notes: Sequence[str],
) -> str:
    return render_report(
        Findings(
            model=f"{stored.manifest.name} version {stored.manifest.version}",
            precision=request.precision,
            quantization=quantization,
            verdict=candidate.verdict,
            comparison=candidate.comparison,
            labels=stored.labels(),
            files=files,
            harms=candidate.harms,
            float_layers=[layer.name for layer in candidate.float_layers],
            bytes=candidate.model.ByteSize(),
            baseline_bytes=stored.variant("fp32").bytes,
            notes=notes,
        )
    )


def _publish(
    store: ModelStore,
    stored: StoredModel,
    precision: Literal["int8", "fp16"],
    candidate: Candidate,
    quantization: Quantization,
    report: str,
) -> StoredModel:
    """The next version of the model: what ``stored`` holds, and the new variant in the place of an older one."""
    others = [variant for variant in stored.manifest.variants if variant.precision != precision]
    with store.staging() as staged:
        file, page = staged / f"model.{precision}.onnx", staged / f"report.{precision}.html"
        file.write_bytes(candidate.model.SerializeToString())
        page.write_text(report, encoding="utf-8", newline="\n")
        variant = Variant(
            **describe_file(file).model_dump(),
            precision=precision,
            quantization=quantization,
            gate=candidate.verdict.gate,
            report=describe_file(page),
        )
        manifest = stored.manifest.model_copy(
            update={
                "version": store.next_version(stored.manifest.name),
                "created": datetime.now(UTC).replace(microsecond=0),
                "variants": [*others, variant],
            }
        )
        manifest = manifest.model_validate(manifest.model_dump())
        for kept in manifest.files:
            if kept.file not in (file.name, page.name):
                shutil.copyfile(stored.path(kept), staged / kept.file)
        (staged / CARD_FILE).write_text(
            renew_card(_card(stored), manifest, stored.labels()), encoding="utf-8", newline="\n"
        )
        return store.publish(staged, manifest)


def _card(stored: StoredModel) -> str:
    """The card of the version that this one is made from; empty where it has none."""
    path = stored.folder / CARD_FILE
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
