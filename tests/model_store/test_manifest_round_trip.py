"""Any manifest is dumped and loaded as it was."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.manifest import (
    Accuracy,
    Architecture,
    Calibration,
    ClassActivationMap,
    File,
    Gate,
    Manifest,
    Outputs,
    Parity,
    Precision,
    Preprocessing,
    Quantization,
    Source,
    Variant,
    dump_manifest,
    load_manifest,
)

from .manifests import written

_FINITE = st.floats(allow_nan=False, allow_infinity=False)
_SHARES = st.floats(0, 1)
_POSITIVE = st.integers(1, 2**31)
_HASHES = st.text("0123456789abcdef", min_size=64, max_size=64)
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_FILES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True).filter(lambda name: name != "manifest.json")
_PARITIES = st.builds(
    Parity,
    images=_POSITIVE,
    image_source=_TEXT,
    batch_sizes=st.lists(_POSITIVE, max_size=3),
    top1_agreement=_SHARES,
    max_absolute_error=st.floats(0, 1e30),
    max_relative_error=st.floats(0, 1e30),
    passed=st.booleans(),
    accuracy=st.none()
    | st.builds(Accuracy, pytorch=_SHARES, exported=_SHARES, by_class=st.dictionaries(_TEXT, _SHARES, max_size=3)),
)


_GATES = st.builds(
    Gate,
    rule=st.sampled_from(["accuracy", "agreement", "off"]),
    passed=st.just(False),
    images=_POSITIVE,
    image_source=_TEXT,
    top1_agreement=_SHARES,
    accuracy=_SHARES,
    baseline_accuracy=_SHARES,
    max_accuracy_drop=_SHARES,
    min_agreement=_SHARES,
    max_absolute_error=st.floats(0, 1e30),
    by_class=st.dictionaries(_TEXT, _SHARES, max_size=3),
)
_QUANTIZATIONS = st.builds(
    Quantization,
    method=st.sampled_from(["minmax", "entropy", "percentile"]),
    calibration_images=_POSITIVE,
    calibration_source=_TEXT,
    float_nodes=st.lists(_TEXT, max_size=2),
)


_CALIBRATIONS = st.builds(
    Calibration,
    temperature=st.floats(1e-3, 1000),
    images=_POSITIVE,
    held_out=st.integers(0, 10**6),
    image_source=_TEXT,
    bins=st.integers(1, 1000),
    error_before=_SHARES,
    error_after=_SHARES,
    coverage=_SHARES,
    energy=_FINITE,
    max_logit=_FINITE,
    report=st.none() | st.builds(File, file=st.just("report.calibration.html"), sha256=_HASHES, bytes=_POSITIVE),
)


def variants(file: str, precision: Precision) -> st.SearchStrategy[Variant]:
    reports = {"parity": _PARITIES} if precision == "fp32" else {"quantization": _QUANTIZATIONS, "gate": _GATES}
    return st.builds(
        Variant, file=st.just(file), sha256=_HASHES, bytes=_POSITIVE, precision=st.just(precision), **reports
    )


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    classes = draw(_POSITIVE)
    precisions = draw(st.lists(st.sampled_from(["fp32", "fp16", "int8"]), min_size=1, unique=True))
    files = draw(st.lists(_FILES, min_size=len(precisions) + 1, max_size=len(precisions) + 1, unique=True))
    cam = draw(st.none() | st.builds(ClassActivationMap, k=st.integers(1, classes), height=_POSITIVE, width=_POSITIVE))
    return Manifest(
        name=draw(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,63}", fullmatch=True)),
        version=str(draw(st.integers(1, 999_999_999))),
        created=draw(st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))),
        architecture=Architecture(
            name=draw(_TEXT),
            spec=draw(st.dictionaries(_TEXT, st.integers() | _TEXT | st.lists(st.integers(), max_size=3), max_size=3)),
            parameters=draw(_POSITIVE),
        ),
        source=Source(origin=draw(_TEXT), file=draw(_TEXT), sha256=draw(_HASHES)),
        preprocessing=Preprocessing(
            height=draw(st.integers(1, 4096)),
            width=draw(st.integers(1, 4096)),
            resize=draw(st.integers(1, 8192)),
            resize_mode=draw(st.sampled_from(["shorter", "squash"])),
            interpolation=draw(st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"])),
            channel_order=draw(st.sampled_from(["rgb", "bgr"])),
            mean=draw(st.tuples(_FINITE, _FINITE, _FINITE)),
            std=draw(st.tuples(*[st.floats(1e-9, 1e9)] * 3)),
        ),
        labels=File(file=files[0], sha256=draw(_HASHES), bytes=draw(_POSITIVE)),
        outputs=Outputs(classes=classes, embedding=draw(st.none() | _POSITIVE), cam=cam),
        opset=draw(_POSITIVE),
        variants=[draw(variants(file, precision)) for file, precision in zip(files[1:], precisions, strict=True)],
        calibration=draw(st.none() | _CALIBRATIONS),
    )


@given(manifest=manifests())
def test_what_is_dumped_loads_the_same(tmp_path_factory: pytest.TempPathFactory, manifest: Manifest) -> None:
    folder = tmp_path_factory.getbasetemp()
    text = dump_manifest(manifest)
    assert text.endswith("}\n")
    assert load_manifest(written(folder, text)) == manifest
    assert dump_manifest(load_manifest(folder / "manifest.json")) == text
