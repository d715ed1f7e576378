"""Variants from start to end: calibrate, convert, compare with fp32, publish a new version or refuse.

A published version is never changed: what passes goes into the next one, beside
the fp32 file and the other variants of the version it was made from. bf16 has no
file: there is nothing to calibrate or convert, but it goes through the same gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from rich.console import Console

from export.errors import ExportError
from export.publishing import publish_next
from export.reports.progress import shown
from export.variants.candidates import Candidate, Candidates, Rules, in_bf16
from export.variants.gate import GateError, Thresholds
from export.variants.gate_providers import check_provider
from export.variants.gate_report import Findings, render_report
from export.variants.quantize import calibrate
from export.variants.variant_images import Calibration, VariantImages, choose_images
from model_store.locations import open_store
from model_store.manifest import File, Variant
from model_store.reports import CalibrationMethod, GateProvider, Quantization
from model_store.store import ModelStore
from model_store.stored_model import StoredModel
from model_store.verified import describe_file

VariantPrecision = Literal["int8", "fp16", "bf16"]
PRECISIONS: Final[tuple[VariantPrecision, ...]] = get_args(VariantPrecision)


@dataclass(frozen=True)
class VariantRequest:
    """What to make of which model.

    model      -- NAME or NAME@VERSION in ``store``.
    precisions -- of the variants; the next version gets all of them, or there is none.
    calibrate  -- images that the ranges are taken from, ``calibration_images`` of them; bf16 alone needs none.
    validate   -- images for the gate; None takes the rest of ``calibrate``.
    method     -- of the calibration; fp16 only looks for values that it cannot hold, by minmax.
    provider   -- where int8 and fp16 are compared with fp32; bf16 always is on OpenVINO.
    report     -- where the page of a single variant goes besides the store; None: to the current folder, if the
                  variant is refused.
    """

    model: str
    store: Path | str
    precisions: tuple[VariantPrecision, ...] = ("int8",)
    calibrate: Path | None = None
    validate: Path | None = None
    method: CalibrationMethod = "percentile"
    calibration_images: int = 512
    provider: GateProvider = "cpu"
    rules: Rules = field(default_factory=lambda: Rules(Thresholds()))
    report: Path | None = None


@dataclass(frozen=True)
class _Made:
    """A variant that was not refused, ready to be published; ``page`` is its report."""

    precision: VariantPrecision
    candidate: Candidate
    quantization: Quantization | None
    page: str


def make_variants(request: VariantRequest, console: Console) -> StoredModel:
    """Make, judge and publish; ``GateError`` names the report of a variant that is refused, and nothing is published.

    ``ExportError`` where something needed for that is missing, told before the slow part begins.
    """
    if request.report and not request.report.parent.is_dir():
        raise ExportError(f"{request.report}: there is no such folder for the report")
    for precision in request.precisions:
        check_provider("openvino" if precision == "bf16" else request.provider, precision)
        if request.calibrate is None and precision != "bf16":
            raise ExportError(f"{precision} needs images to calibrate with: name some with --calibrate")
    store = open_store(request.store, writing=True)
    stored = store.find(request.model)
    stored.verify()
    images = choose_images(stored, request.calibrate, request.calibration_images, request.validate, request.rules)
    _say(console, *images.notes)
    if stored.manifest.preprocessing.jpeg_scaling:
        _say(console, "large JPEGs are decoded whole again; `python -m export draft` measures the new variants, too")
    made = [_make(precision, request, stored, images, console) for precision in request.precisions]
    return _publish(store, stored, made)


def _say(console: Console, *notes: str) -> None:
    for note in notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def _make(
    precision: VariantPrecision, request: VariantRequest, stored: StoredModel, images: VariantImages, console: Console
) -> _Made:
    """One variant, with its report; ``GateError`` where it is refused."""
    file, labels = stored.path(stored.variant("fp32")), stored.labels()
    notes, quantization = list(images.notes), None
    if precision == "bf16" or images.calibration is None:  # only bf16 came this far without images to calibrate with
        candidate = in_bf16(file, images.validation.images, labels, request.rules, console)
    else:
        candidates = _candidates(precision, request, stored, images.calibration, images, console)
        if candidates.too_large:
            notes.append(f"{len(candidates.too_large)} nodes stay in fp32, as their values are too large for fp16")
            _say(console, notes[-1])
        candidate = candidates.best(labels, request.rules)
        quantization = _quantization(precision, request, images.calibration, candidate)
    page = _page(precision, stored, candidate, quantization, images.validation.files, notes)
    if candidate.verdict.reasons:
        path = request.report or Path(f"{stored.manifest.name}-{precision}-report.html")
        path.write_text(page, encoding="utf-8", newline="\n")
        raise GateError(f"{precision} is refused: {'; '.join(candidate.verdict.reasons)}; report: {path}")
    if request.report:
        request.report.write_text(page, encoding="utf-8", newline="\n")
    return _Made(precision, candidate, quantization, page)


def _candidates(
    precision: Literal["int8", "fp16"],
    request: VariantRequest,
    stored: StoredModel,
    calibration: Calibration,
    images: VariantImages,
    console: Console,
) -> Candidates:
    """Calibrates; the candidates are made when they are asked for."""
    file, chosen, method = stored.path(stored.variant("fp32")), calibration.images, _method(precision, request)
    console.print(f"calibrating by {method} on {chosen.count} images of {chosen.name}", markup=False, highlight=False)
    calibrated = calibrate(file, method, shown(chosen.read(), "calibrating", chosen.count, console))
    return Candidates(
        stored.manifest,
        file,
        precision,
        calibrated,
        images.validation.images,
        calibration.probe,
        console,
        request.provider,
    )


def _method(precision: VariantPrecision, request: VariantRequest) -> CalibrationMethod:
    return request.method if precision == "int8" else "minmax"


def _quantization(
    precision: VariantPrecision, request: VariantRequest, calibration: Calibration, candidate: Candidate
) -> Quantization:
    return Quantization(
        method=_method(precision, request),
        calibration_images=calibration.images.count,
        calibration_source=calibration.images.name,
        float_nodes=sorted(candidate.float_nodes),
    )


def _page(
    precision: VariantPrecision,
    stored: StoredModel,
    candidate: Candidate,
    quantization: Quantization | None,
    files: Sequence[str],
    notes: Sequence[str],
) -> str:
    fp32 = stored.variant("fp32")
    return render_report(
        Findings(
            model=f"{stored.manifest.name} version {stored.manifest.version}",
            precision=precision,
            quantization=quantization,
            verdict=candidate.verdict,
            comparison=candidate.comparison,
            labels=stored.labels(),
            files=files,
            harms=candidate.harms,
            float_layers=[layer.name for layer in candidate.float_layers],
            bytes=fp32.bytes if candidate.model is None else candidate.model.ByteSize(),
            baseline_bytes=fp32.bytes,
            notes=notes,
        )
    )


def _publish(store: ModelStore, stored: StoredModel, made: Sequence[_Made]) -> StoredModel:
    """The next version of the model: what ``stored`` holds, and the new variants in the place of older ones."""
    new = {one.precision for one in made}
    others = [variant for variant in stored.manifest.variants if variant.precision not in new]

    def make(staged: Path) -> dict[str, Any]:
        variants = [*others, *(_stage(one, stored, staged) for one in made)]
        # Scaling is for variants that were measured with it, every one.
        whole = stored.manifest.preprocessing.model_copy(update={"jpeg_scaling": None})
        return {"variants": variants, "preprocessing": whole}

    return publish_next(store, stored, make)


def _stage(made: _Made, stored: StoredModel, staged: Path) -> Variant:
    """Write the variant's files into ``staged``; bf16 has its report alone, as its weights are the fp32 file."""
    page = staged / f"report.{made.precision}.html"
    page.write_text(made.page, encoding="utf-8", newline="\n")
    if made.candidate.model is None:
        file = stored.variant("fp32").model_dump(include=set(File.model_fields))
    else:
        path = staged / f"model.{made.precision}.onnx"
        path.write_bytes(made.candidate.model.SerializeToString())
        file = describe_file(path).model_dump()
    return Variant(
        **file,
        precision=made.precision,
        quantization=made.quantization,
        gate=made.candidate.verdict.gate,
        report=describe_file(page),
    )
