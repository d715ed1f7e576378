"""``python -m export quantize MODEL``: int8, fp16 and bf16 variants, published if they are as good as fp32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import click
from rich.console import Console

from export.commands.gate_options import max_accuracy_drop_option, min_agreement_option
from export.commands.options import place, store_option, taken, version_json
from export.variants.candidates import FALLBACKS, Rules
from export.variants.gate import Thresholds
from export.variants.variant import PRECISIONS, VariantPrecision, VariantRequest, make_variants
from model_store.command_line.options import json_option, print_json
from model_store.locations import open_store
from model_store.reports import CalibrationMethod, Gate, GateProvider, Quantization
from model_store.stored_model import StoredModel

_AUTO = "auto"


class _Layers(click.ParamType[int | None]):
    """A number of layers, or ``auto`` (as None)."""

    name = "N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        return None if value in (None, _AUTO) else click.IntRange(min=0).convert(value, param, ctx)


@click.command()
@click.argument("model")
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path),
    metavar="DIR_OR_ZIP",
    help="Images like those that will be served; the ranges of the feature maps are taken from them. bf16 needs none.",
)
@click.option(
    "--validate",
    type=click.Path(path_type=Path),
    metavar="DIR_OR_ZIP",
    help="Images for the gate, best in a folder a label. Without it, what calibration left over.",
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(PRECISIONS),
    multiple=True,
    default=VariantRequest.precisions,
    show_default=True,
    help="May be repeated: the next version has all of them, or there is none.",
)
@click.option(
    "--provider",
    type=click.Choice(get_args(GateProvider)),
    default=VariantRequest.provider,
    show_default=True,
    help="Where int8 and fp16 are compared with fp32: auto serves a variant on the CPU or on a GPU only if its gate "
    "was there. bf16 always is on openvino.",
)
@click.option(
    "--method",
    type=click.Choice(get_args(CalibrationMethod)),
    default=VariantRequest.method,
    show_default=True,
    help="How int8 ranges are chosen.",
)
@click.option(
    "--calibration-images",
    type=click.IntRange(1, 100_000),
    default=VariantRequest.calibration_images,
    show_default=True,
    metavar="N",
    help="So many of --calibrate, evenly spread.",
)
@max_accuracy_drop_option
@min_agreement_option
@click.option(
    "--gate",
    type=click.Choice(["on", "off"]),
    default="on",
    show_default=True,
    help="off publishes whatever comes out, marked ungated: for benchmarks with seeded weights.",
)
@click.option(
    "--fallback",
    type=_Layers(),
    default=_AUTO,
    show_default=True,
    help=f"Keep the N worst layers in fp32. auto: none, and up to {FALLBACKS[-1]} where the gate refuses.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also write the report here. A refused variant's goes to ./MODEL-PRECISION-report.html by default.",
)
@store_option
@json_option
def quantize(
    model: str,
    calibrate: Path | None,
    validate: Path | None,
    precisions: tuple[VariantPrecision, ...],
    provider: GateProvider,
    method: CalibrationMethod,
    calibration_images: int,
    max_accuracy_drop: float,
    min_agreement: float,
    gate: str,
    fallback: int | None,
    report: Path | None,
    store: str,
    as_json: bool,
) -> None:
    """Make int8, fp16 or bf16 variants of a stored model, publish them if they are as good as fp32.

    MODEL is NAME or NAME@VERSION. What passes the gate becomes the model's
    next version, which holds fp32 too; what fails is refused with a report.
    bf16 is the fp32 file as OpenVINO runs it on CPUs that have bf16.

    \b
    Examples:
      python -m export quantize cifar10 --calibrate train.zip --validate test.zip
      python -m export quantize mine --calibrate photos/ --precision fp16 --provider cuda
      python -m export quantize mine --precision bf16 --validate test.zip
    """
    precisions = tuple(dict.fromkeys(precisions))
    if report and len(precisions) > 1:
        raise click.UsageError("--report is for one --precision; the store has a page for each")
    request = VariantRequest(
        model=model,
        store=store,
        precisions=precisions,
        calibrate=calibrate,
        validate=validate,
        method=method,
        calibration_images=calibration_images,
        provider=provider,
        rules=Rules(Thresholds(max_accuracy_drop / 100, min_agreement / 100), off=gate == "off", fallback=fallback),
        report=report,
    )
    stored = make_variants(request, Console(stderr=True))
    models = open_store(store)
    if as_json:
        print_json(version_json(models, stored))
    else:
        click.echo(_summary(place(models, stored), stored, precisions))


def _summary(where: str, stored: StoredModel, precisions: Sequence[VariantPrecision]) -> str:
    """What was published, as lines of two columns."""
    manifest = stored.manifest
    rows = [
        ("model", f"{manifest.name} version {manifest.version} ({manifest.architecture.name})"),
        ("folder", where),
    ]
    for variant in manifest.variants:
        same = ", the fp32 file" if variant.precision == "bf16" else ""
        rows.append((variant.precision, f"{variant.bytes / 1e6:.1f} MB{same}"))
        if variant.precision in precisions and variant.gate and variant.report:
            rows += _made(variant.quantization)
            rows += _judged(variant.gate)
            rows.append(("report", f"{where}/{variant.report.file}"))
    rows.append(taken(stored))
    return "\n".join(f"{key:<12}{value}" for key, value in rows)


def _made(how: Quantization | None) -> list[tuple[str, str]]:
    if how is None:
        return []
    rows = [("calibration", f"{how.method}, {how.calibration_images} images of {how.calibration_source}")]
    if how.float_nodes:
        rows.append(("kept fp32", f"{len(how.float_nodes)} nodes"))
    return rows


def _judged(gate: Gate) -> list[tuple[str, str]]:
    outcome = f"passed, by {gate.rule}" if gate.passed else "off: ungated, served only where asked for by name"
    rows = [("gate", outcome), ("run on", gate.provider)]
    if gate.accuracy is not None:
        rows.append(("accuracy", f"{gate.accuracy:.2%} (fp32 {gate.baseline_accuracy:.2%})"))
    rows.append(("agreement", f"{gate.top1_agreement:.2%} of {gate.images} images of {gate.image_source}"))
    return rows
