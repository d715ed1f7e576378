"""The page shows both diagrams, every bin, and text from outside as text."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from export.calibration.calibration_report import Findings, VariantFindings, render_report, scores
from export.calibration.detection import Scores
from export.calibration.temperature import reliability
from model_store.reports import Calibration
from tests.export.calibration.test_temperature import sampled
from tests.export.variants.test_gate_report import Page

LOGITS, TARGETS = sampled(500)
KNOWN = Scores.of(LOGITS)
OUTLIERS = Scores.of(LOGITS[:50] / 2)


def findings(temperature: float = 1.25, **changes: object) -> Findings:
    before, after = (reliability(LOGITS, TARGETS, t) for t in (1.0, temperature))
    base = Findings(
        model="pets version 3",
        calibration=Calibration(
            temperature=temperature,
            images=501,
            held_out=500,
            image_source="test.zip",
            bins=15,
            error_before=before.error,
            error_after=after.error,
            coverage=0.95,
            energy=float(np.quantile(KNOWN.energy, 0.05)),
            max_logit=float(np.quantile(KNOWN.max_logit, 0.05)),
        ),
        before=before,
        after=after,
        likelihood=(0.4321, 0.3456),
        accuracy=0.8765,
        known=KNOWN,
        outliers=None,
        outlier_source=None,
        variants=[
            VariantFindings("fp32", "cpu", 0.8765, 0.1, 0.02, 0.951, 0.949),
            VariantFindings("int8", "openvino", 0.8764, 0.11, 0.03, 0.952, 0.948),
        ],
        notes=["something to know"],
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def flat(page: str) -> str:
    return re.sub(r"\s+", " ", Page(page.replace("<td", " <td")).text)


def test_all_figures_are_there() -> None:
    page = render_report(findings())
    text = flat(page)
    for part in (
        "pets version 3: calibration",
        "softmax(logits / 1.2500)",
        "surer than it was right",
        "501 images of test.zip",
        "500 others of it",
        "0.4321 before, 0.3456 after",
        "87.65 %, before and after",
        f"{100 * findings().calibration.error_before:.2f} % before",
        "int8 openvino 87.64 % 11.00 % 3.00 % 95.20 % 94.80 %",
        "something to know",
        "How many outliers they find was not measured",
        "What to do with it",
    ):
        assert part in text
    assert Page(page).tags.count("svg") == 3
    assert "AUROC" not in text


def test_every_bin_has_its_row() -> None:
    found = findings()
    text = flat(render_report(found))
    rows = re.findall(r"(\d\.\d\d) to (\d\.\d\d) ([\d,]+) ", text)
    assert [row[0] for row in rows] == [f"{i / 15:.2f}" for i in range(15)]
    assert [int(row[2]) for row in rows] == found.before.counts.tolist()
    assert "0.00 to 0.07 0 0 0.07" in text  # nothing is less sure than a tenth


@pytest.mark.parametrize(("temperature", "words"), [(0.8, "become larger"), (1.0, "stay as they are")])
def test_what_the_temperature_does_is_told(temperature: float, words: str) -> None:
    assert words in flat(render_report(findings(temperature)))


def test_outliers_have_their_figures() -> None:
    found = findings(outliers=OUTLIERS, outlier_source="photos.zip")
    energy, max_logit = scores(found)
    assert (energy.name, max_logit.name) == ("energy", "max logit")
    assert energy.detection
    assert energy.detection.auroc > 0.5
    assert energy.reached == pytest.approx(0.95)
    text = flat(render_report(found))
    assert f"{energy.detection.auroc:.4f}" in text
    assert "50 images of photos.zip" in text
    assert "was not measured" not in text


def test_the_page_is_the_same_every_time() -> None:
    assert render_report(findings()) == render_report(findings())


def test_names_from_outside_are_text() -> None:
    name = "<script>alert(1)</script> $\\frac$"
    calibration = findings().calibration.model_copy(update={"image_source": name})
    page = render_report(findings(calibration=calibration, outliers=OUTLIERS, outlier_source=name, notes=[name]))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 4
    assert "src=" not in page
