"""bf16, which is the fp32 file; and several precisions at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from export.errors import ExportError
from export.variants import candidates
from export.variants import variant as module
from export.variants.candidates import Rules
from export.variants.gate import GateError, Logits, Thresholds, cpu_logits
from export.variants.variant import VariantRequest, make_variants

from .conftest import contents


def rounded(path: Path) -> Logits:
    """fp32's logits, rounded as bf16 would."""
    run = cpu_logits(path)
    return lambda pixels: (run(pixels).view(np.uint32) & 0xFFFF0000).view(np.float32)


@pytest.fixture
def bf16(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, str, str]]:
    """What is opened where; this machine need not have bf16 for it."""
    opened: list[tuple[Path, str, str]] = []

    def fake(model: Path, provider: str, precision: str) -> Logits:
        opened.append((model, provider, precision))
        return rounded(model) if precision == "bf16" else cpu_logits(model)

    monkeypatch.setattr(module, "check_provider", lambda *_: None)
    monkeypatch.setattr(candidates, "open_logits", fake)
    return opened


def test_bf16_is_published_as_the_fp32_file(
    request_: VariantRequest, console: Console, bf16: list[tuple[Path, str, str]]
) -> None:
    stored = make_variants(replace(request_, precisions=("bf16",), calibrate=None), console)
    fp32, variant = stored.manifest.variants
    stored.verify()
    assert bf16 == [(request_.store / "colours" / "1" / fp32.file, "openvino", "bf16")]
    assert (variant.precision, variant.gated, variant.quantization) == ("bf16", True, None)
    assert (variant.file, variant.sha256, variant.bytes) == (fp32.file, fp32.sha256, fp32.bytes)
    assert variant.gate
    assert (variant.gate.provider, variant.gate.rule, variant.gate.images) == ("openvino", "accuracy", 60)
    assert variant.gate.max_absolute_error > 0
    assert sorted(path.name for path in stored.folder.iterdir()) == [
        "README.md",
        "labels.txt",
        "manifest.json",
        "model.fp32.onnx",
        "report.bf16.html",
    ]
    assert "calibrating" not in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.usefixtures("bf16")
def test_several_precisions_become_one_version(request_: VariantRequest, console: Console) -> None:
    stored = make_variants(replace(request_, precisions=("int8", "bf16")), console)
    stored.verify()
    assert stored.manifest.version == "2"
    assert [v.precision for v in stored.manifest.variants] == ["fp32", "int8", "bf16"]
    assert [v.gate.provider for v in stored.manifest.variants[1:] if v.gate] == ["cpu", "openvino"]
    card = (stored.folder / "README.md").read_text()
    assert "report.int8.html" in card
    assert "report.bf16.html" in card
    later = make_variants(replace(request_, precisions=("fp16",), rules=Rules(Thresholds())), console)
    assert later.manifest.variants[:3] == stored.manifest.variants


@pytest.mark.usefixtures("bf16", "ruined")
def test_where_one_of_several_is_refused_none_is_published(request_: VariantRequest, console: Console) -> None:
    before = contents(request_.store)
    with pytest.raises(GateError, match="int8 is refused"):
        make_variants(replace(request_, precisions=("bf16", "int8")), console)
    assert contents(request_.store) == before


def test_bf16_can_be_refused(request_: VariantRequest, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "check_provider", lambda *_: None)
    monkeypatch.setattr(candidates, "open_logits", lambda path, *_: lambda pixels: -cpu_logits(path)(pixels))
    with pytest.raises(GateError, match=r"bf16 is refused: its accuracy.*report: colours-bf16-report\.html"):
        make_variants(replace(request_, precisions=("bf16",), calibrate=None), console)
    assert "calibration" not in Path("colours-bf16-report.html").read_text()


@pytest.mark.usefixtures("bf16")
def test_bf16_needs_images_to_compare_on(request_: VariantRequest, console: Console) -> None:
    with pytest.raises(ExportError, match="name some with --validate"):
        make_variants(replace(request_, precisions=("bf16",), calibrate=None, validate=None), console)
    gate = make_variants(replace(request_, precisions=("bf16",), validate=None), console).manifest.variants[1].gate
    assert gate
    assert (gate.rule, gate.image_source) == ("agreement", "train")
