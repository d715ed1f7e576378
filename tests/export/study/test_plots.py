"""Every figure is drawn, without a screen, the same bytes each time."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from PIL import Image

from export.study import plots, shattered
from export.study.report import SHORTCUTS
from tests.export.study.test_report import ALL, CURVES, curve, result

FIRST = {arch: result(arch, error) for arch, error in ALL.items()}


def is_svg(path: Path) -> bool:
    return ET.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314


def test_errors_over_epochs(tmp_path: Path) -> None:
    plots.degradation(FIRST, tmp_path / "new" / "a.svg")
    plots.shortcuts(FIRST, SHORTCUTS, tmp_path / "b.svg")
    assert is_svg(tmp_path / "new" / "a.svg")
    assert is_svg(tmp_path / "b.svg")


def test_networks_that_are_missing_are_left_out(tmp_path: Path) -> None:
    some = {"cifar_plain20": FIRST["cifar_plain20"], "cifar_resnet20": FIRST["cifar_resnet20"]}
    plots.degradation(some, tmp_path / "a.svg")
    plots.shortcuts(some, SHORTCUTS, tmp_path / "b.svg")
    assert is_svg(tmp_path / "a.svg")


def test_gradients_by_block(tmp_path: Path) -> None:
    plots.gradient_flow([*CURVES, curve("cifar_resnet110", "initialisation", 2.0)], tmp_path / "a.svg")
    assert is_svg(tmp_path / "a.svg")


def test_same_results_same_bytes(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        plots.degradation(FIRST, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_shattered_gradients(tmp_path: Path) -> None:
    plots.autocorrelations(shattered.measure_all(seeds=2, depths=(2, 4)), tmp_path / "a.svg")
    noises = {str(i): noise(4) for i, noise in enumerate([*shattered.NOISES.values()] * 2)}
    plots.covariances(noises, tmp_path / "b.png")
    assert is_svg(tmp_path / "a.svg")
    with Image.open(tmp_path / "b.png") as image:
        assert image.width > 800
    assert (tmp_path / "b.png").stat().st_size < 200_000
