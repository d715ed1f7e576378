"""The page says what was measured, and shows what comes from outside as text."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.graphs.feature_nodes import Layer
from export.variants.gate import Comparison, Thresholds, judge
from export.variants.gate_report import Findings, render_report, worst_images
from export.variants.sensitivity import LayerHarm
from model_store.reports import Quantization

LABELS = ("cat", "dog", "elk")
COMPARISON = Comparison(
    source="test.zip",
    expected=np.array([0, 0, 1, 2, 1, 0]),
    found=np.array([0, 1, 1, 2, 0, 2]),
    targets=np.array([0, 0, 1, 1, 0, 0]),
    errors=np.array([0.1, 0.2, 0.9, 0.4, 0.3, 0.5], np.float32),
    margins=np.array([5, 1, 4, 3, 2, 6], np.float32),
)
FILES = [f"{name}/{i}.png" for i, name in enumerate(("cat", "cat", "dog", "dog", "cat", "cat"))]
HARMS = [LayerHarm(Layer("layer1.0.conv1", ("n1",)), 0.25, 0.5), LayerHarm(Layer("conv1", ("n2",)), 1e-5, 0)]


def findings(thresholds: Thresholds | None = None, off: bool = False, **changes: object) -> Findings:
    base = Findings(
        model="pets version 3",
        precision="int8",
        quantization=Quantization(
            method="minmax", calibration_images=512, calibration_source="train.zip", float_nodes=[]
        ),
        verdict=judge(COMPARISON, LABELS, thresholds or Thresholds(), off),
        comparison=COMPARISON,
        labels=LABELS,
        files=FILES,
        harms=HARMS,
        float_layers=["conv1"],
        bytes=300_000,
        baseline_bytes=1_100_000,
        notes=["something to know"],
    )
    return replace(base, **changes)  # type: ignore[arg-type]


class Page(HTMLParser):
    """Tags and text of a page; raises nothing, so the tests look at what is there."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_refused_variant() -> None:
    page = Page(render_report(findings()))
    assert "refused" in page.text
    assert "its accuracy, 50.00%, is 16.67 points below fp32's 66.67% (limit 0.5)" in page.text
    assert "Worst layers" in page.text
    assert "layer1.0.conv1" in page.text
    assert page.tags.count("svg") == 4
    assert "min-max, 512 images" in re.sub(r"\s+", " ", page.text)
    assert "something to know" in page.text
    assert "0.3 MB (fp32: 1.1 MB)" in page.text


def test_a_variant_that_passed() -> None:
    text = render_report(findings(Thresholds(1, 0), harms=[]))
    assert '<span class="outcome passed">passed</span>' in text
    assert "Worst layers" not in text
    assert "Worst images" in text


def test_an_ungated_variant_says_so() -> None:
    text = render_report(findings(off=True))
    assert '<span class="outcome ungated">ungated</span>' in text
    assert "for benchmarks" in text


def test_it_says_where_the_variant_ran() -> None:
    verdict = judge(COMPARISON, LABELS, Thresholds(), provider="cuda")
    assert "run oncuda, against fp32 on cpu" in Page(render_report(findings(verdict=verdict))).text


def test_bf16_has_no_calibration_and_no_file_of_its_own() -> None:
    page = Page(render_report(findings(precision="bf16", quantization=None, harms=[], float_layers=[])))
    assert "calibration" not in page.text
    assert "layers kept" not in page.text
    assert "0.3 MB (the fp32 one)" in page.text


def test_without_labels() -> None:
    comparison = replace(COMPARISON, targets=None)
    verdict = judge(comparison, LABELS, Thresholds())
    page = Page(render_report(findings(comparison=comparison, verdict=verdict)))
    assert "accuracy" not in page.text.lower()
    assert "98 % of the top classes" in page.text


def test_layers_that_are_infinitely_bad() -> None:
    assert "inf" in render_report(findings(harms=[LayerHarm(Layer("conv1", ()), float("inf"), 1.0)]))


def test_the_page_needs_nothing_else() -> None:
    text = render_report(findings())
    tags = set(Page(text).tags)
    assert not tags & {"script", "link", "img", "iframe", "image"}
    assert "Content-Security-Policy" in text
    assert not re.findall(r"(?:src|href)=\"(?!#)", text)


HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.mark.parametrize("field", ["model", "labels", "files", "notes", "float_layers", "harms", "quantization"])
def test_what_comes_from_outside_is_text(field: str) -> None:
    changes: dict[str, object] = {
        "model": HOSTILE,
        "labels": (HOSTILE, *LABELS[1:]),
        "files": [HOSTILE, *FILES[1:]],
        "notes": [HOSTILE],
        "float_layers": [HOSTILE],
        "harms": [LayerHarm(Layer(HOSTILE, ()), 1, 1)],
        "quantization": Quantization(
            method="entropy", calibration_images=1, calibration_source=HOSTILE, float_nodes=[]
        ),
    }
    page = Page(render_report(findings(**{field: changes[field]})))
    assert "img" not in page.tags
    assert HOSTILE in page.text


@given(st.lists(st.text(min_size=1), min_size=3, max_size=3))
def test_any_label_gives_a_page(labels: list[str]) -> None:
    """The plots are left out, as they are slow; they have a test of their own."""
    with mock.patch("export.variants.gate_plots.plots", return_value=[]):
        assert "script" not in Page(render_report(findings(labels=labels))).tags


# The worst images


def test_answers_that_became_wrong_come_first() -> None:
    worst = worst_images(COMPARISON, LABELS, FILES)
    # 5 and 1 were right (the clearer first), 4 was wrong already; then, by error, those that did not change.
    assert [FILES.index(image.file) for image in worst] == [5, 1, 4, 2, 3, 0]
    assert (worst[0].label, worst[0].expected, worst[0].found) == ("cat", "cat", "elk")
    assert (worst[0].margin, worst[0].error) == (6, 0.5)


def test_without_labels_the_clearest_changes_come_first() -> None:
    worst = worst_images(replace(COMPARISON, targets=None), LABELS, FILES)
    assert [FILES.index(image.file) for image in worst] == [5, 4, 1, 2, 3, 0]
    assert worst[0].label == ""


def test_broken_logits_are_worse_than_any_error() -> None:
    errors = COMPARISON.errors.copy()
    errors[0] = np.inf
    worst = worst_images(replace(COMPARISON, errors=errors, found=COMPARISON.expected), LABELS, FILES)
    assert worst[0].file == FILES[0]


def test_not_all_are_shown() -> None:
    assert len(worst_images(COMPARISON, LABELS, FILES, count=2)) == 2
