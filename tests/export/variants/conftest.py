"""A request for int8 of a small model, with images to calibrate and to judge with."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.variants import variant as module
from export.variants.candidates import Rules
from export.variants.gate import Thresholds
from export.variants.quantize import Calibrated
from export.variants.variant import VariantRequest
from tests.export import colours

LOOSE = Thresholds(max_accuracy_drop=0.1, min_agreement=0.9)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``train``, unlabelled, and ``test``, labelled."""
    root = tmp_path_factory.mktemp("images")
    colours.write(root / "train", colours.CALIBRATION, labels=False)
    colours.write(root / "test", colours.IMAGES)
    return root


@pytest.fixture
def request_(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> VariantRequest:
    """int8 of ``colours`` version 1; pages of refused variants go to ``tmp_path``."""
    colours.publish(tmp_path / "store")
    monkeypatch.chdir(tmp_path)
    return VariantRequest(
        model="colours",
        store=tmp_path / "store",
        calibrate=images / "train",
        validate=images / "test",
        method="minmax",
        rules=Rules(LOOSE),
    )


@pytest.fixture
def ruined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every calibration finds a twentieth of the true ranges."""
    real = module.calibrate

    def shrunken(*arguments: object) -> Calibrated:
        return colours.shrunken(real(*arguments))  # type: ignore[arg-type]

    monkeypatch.setattr(module, "calibrate", shrunken)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
