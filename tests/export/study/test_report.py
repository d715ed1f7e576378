"""Tables and sentences from made-up results, and the document that takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from export.study import gradient_flow, records, report, shattered
from export.study.gradient_flow import GradientCurve
from export.study.identity import IdentityCheck
from export.study.training_runs import Run, RunResult, StudyError
from export.train import EpochRecord

ERRORS = {"cifar_plain20": 0.20, "cifar_plain56": 0.35, "cifar_resnet20": 0.19, "cifar_resnet56": 0.18}
ALL = {**ERRORS, "cifar_resnet20_b": 0.185, "cifar_resnet20_c": 0.18, "cifar_preresnet20": 0.19}
CHECK = IdentityCheck("cifar_preresnet20", "layer1.1", True, 1024, 0.0, 2e-9, 0.98, -0.02, 3.5)


def result(arch: str, error: float, seed: int = 1, epochs: int = 2) -> RunResult:
    history = (EpochRecord(1, 2.0, 0.8, 0.7, 10.0), EpochRecord(2, 1.0, error + 0.01, error, 10.0))
    return RunResult(Run(arch, epochs, 500, seed=seed), 12_345, 500, history, 10_000, error)


def results(errors: dict[str, float] = ALL) -> dict[str, Sequence[RunResult]]:
    return {arch: [result(arch, error)] for arch, error in errors.items()}


def curve(arch: str, state: gradient_flow.State, first: float) -> GradientCurve:
    return GradientCurve(arch, state, ("a", "b"), (first, 0.5), (1.0, 1.0), "1 epoch" if state == "trained" else None)


CURVES = [curve("cifar_plain20", "initialisation", 10.0), curve("cifar_plain20", "trained", 1.0)]


def test_degradation_is_put_in_words() -> None:
    text = report.degradation(results())
    assert "2 epochs of 500 images, tested on 10,000; seed 1." in text
    assert "| plain-56 | 12,345 | 36.00 % | 35.00 % | figure 6 |" in text
    assert "Plain-56 has 15.0 points higher training error and 15.0 points higher test error than plain-20." in text
    assert "ResNet-56 has 1.0 points lower training error and 1.0 points lower test error than ResNet-20." in text


def test_seeds_are_a_mean_and_a_range() -> None:
    several = results()
    several["cifar_resnet20_b"] = [result("cifar_resnet20_b", error, seed) for seed, error in ((1, 0.18), (2, 0.2))]
    text = report.shortcuts(several)
    assert "seeds 1, 2." in text
    assert "| 19.00 % (18.00 to 20.00) | 24.52 % |" in text


def test_missing_and_unequal_runs_are_not_compared() -> None:
    with pytest.raises(StudyError, match="not trained yet: cifar_resnet20_b"):
        report.shortcuts(results(ERRORS))
    unequal = {**results(), "cifar_plain56": [result("cifar_plain56", 0.3, epochs=9)]}
    with pytest.raises(StudyError, match="different lengths"):
        report.degradation(unequal)


def test_gradients_are_a_row_a_network() -> None:
    lines = report.gradients(CURVES).splitlines()
    assert lines[2:] == ["| plain20 | 20 | not measured | 2 | 1 epoch |"]


def test_identity_table() -> None:
    assert "| cifar_preresnet20 layer1.1, trained | 1024 x 1024 | 0.0e+00 | 2.0e-09 |" in report.identities([CHECK])


def test_shattering_table_leaves_the_shallow_out() -> None:
    found = [shattered.Shattering(f"{depth}-layer plain", (1.0,) * 16, 1.5, 2.0) for depth in (1, 2, 4, 24)]
    names = [line.split("|")[1].strip() for line in report.shattering(found).splitlines()[2:]]
    assert names == ["1-layer plain", "24-layer plain"]


def test_fill_replaces_what_stands_between() -> None:
    document = "a\n<!-- study:x -->\nold\n<!-- /study:x -->\nb\n"
    once = report.fill(document, "x", "new")
    assert once == "a\n<!-- study:x -->\nnew\n<!-- /study:x -->\nb\n"
    assert report.fill(once, "x", "new") == once


@pytest.mark.parametrize(
    "document", ["", "<!-- study:x -->", "<!-- /study:x --><!-- study:x -->", 2 * "<!-- study:x --><!-- /study:x -->"]
)
def test_fill_needs_one_place(document: str) -> None:
    with pytest.raises(StudyError, match="no place for 'x'"):
        report.fill(document, "x", "new")


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """A copy of the real document."""
    folder = tmp_path / "docs"
    folder.mkdir()
    text = (Path(__file__).parents[3] / "docs" / report.DOCUMENT).read_text()
    (folder / report.DOCUMENT).write_text(text)
    return folder


def test_the_real_document_takes_every_section(tmp_path: Path, docs: Path) -> None:
    out = tmp_path / "out"
    for of_arch in results().values():
        of_arch[0].save(of_arch[0].run.result(out))
    records.save(CURVES, out / "gradients.json")
    records.save([CHECK], out / "identity.json")
    records.save(shattered.measure_all(seeds=2, depths=(2,)), out / "shattered.json")
    filled = report.render(out, docs)
    assert filled == ["degradation", "shortcuts", "gradients", "identity", "shattered"]
    text = (docs / report.DOCUMENT).read_text()
    assert "Plain-56 has 15.0 points higher" in text
    drawn = {path.name for path in (docs / report.IMAGES).iterdir()}
    assert drawn == {"degradation.svg", "shortcuts.svg", "gradients.svg", "autocorrelation.svg"}
    assert all(f"(images/study/{name})" in text for name in drawn)


def test_only_what_was_measured_is_written(tmp_path: Path, docs: Path) -> None:
    before = (docs / report.DOCUMENT).read_text()
    with pytest.raises(StudyError, match="no results there"):
        report.render(tmp_path / "out", docs)
    records.save([replace(CHECK, arch="another")], tmp_path / "out" / "identity.json")
    assert report.render(tmp_path / "out", docs) == ["identity"]
    after = (docs / report.DOCUMENT).read_text()
    assert "another layer1.1" in after
    assert after != before
