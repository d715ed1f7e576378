"""Plots are whole, small, safe to put into a page, and drawn for any comparison."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.reports.pages import Plot
from export.variants.gate import Comparison
from export.variants.gate_plots import _plain, _shares, plots


def a_comparison(n: int = 50, classes: int = 5, labelled: bool = True, change: float = 0.1) -> Comparison:
    random = np.random.default_rng(0)
    expected = random.integers(0, classes, n)
    found = np.where(random.random(n) < change, random.integers(0, classes, n), expected)
    return Comparison(
        "made up",
        expected,
        found,
        random.integers(0, classes, n) if labelled else None,
        random.random(n).astype(np.float32),
        random.random(n).astype(np.float32),
    )


def text(plot: Plot) -> str:
    """All text of the SVG, which a browser would show."""
    return " ".join("".join(element.itertext()) for element in ET.fromstring(plot.svg).iter() if element.text)  # noqa: S314


def test_with_labels() -> None:
    found = plots(a_comparison(), [f"class {i}" for i in range(5)])
    assert [plot.title for plot in found] == [
        "Agreement by fp32's margin",
        "Logit error",
        "Accuracy by class",
        "Changed answers",
    ]
    for plot in found:
        assert plot.svg.startswith("<svg")
        assert "<image" not in plot.svg
        ET.fromstring(plot.svg)  # noqa: S314 - our own
    assert "class 3" in text(found[2])
    assert "fp32" in text(found[2])


def test_without_labels_agreement_takes_the_place_of_accuracy() -> None:
    titles = [plot.title for plot in plots(a_comparison(labelled=False), [f"class {i}" for i in range(5)])]
    assert "Agreement by class" in titles
    assert "Accuracy by class" not in titles


def test_without_changes_there_is_no_confusion() -> None:
    assert "Changed answers" not in [p.title for p in plots(a_comparison(change=0), list("abcde"))]


def test_many_classes_are_cut_to_the_telling_ones() -> None:
    found = plots(a_comparison(2000, 300), [f"class {i}" for i in range(300)])
    assert "the worst 20 of" in text(found[2])
    assert all(len(plot.svg) < 300_000 for plot in found)


def test_plots_are_the_same_every_time_and_share_no_ids() -> None:
    labels = list("abcde")
    first = plots(a_comparison(), labels)
    assert first == plots(a_comparison(), labels)
    clips = [{e.get("id") for e in ET.fromstring(p.svg).iter() if e.tag.endswith("clipPath")} for p in first]  # noqa: S314
    assert sum(map(len, clips)) == len(set().union(*clips))


@pytest.mark.parametrize(
    "label",
    ["<script>alert(1)</script>", "$\\frac$", "a & b", "\"'", "日本語", "line\nbreak", "\x07", "", " " * 50, "\ud7ff"],
)
def test_any_label_is_shown_as_text(label: str) -> None:
    for plot in plots(a_comparison(), [label, *"bcde"]):
        assert "<script" not in plot.svg
        ET.fromstring(plot.svg)  # noqa: S314


@settings(max_examples=200)
@given(st.text())
def test_labels_are_made_plain(label: str) -> None:
    plain = _plain(label)
    assert len(plain) <= 24
    assert plain.isprintable()


@pytest.mark.parametrize("n", [1, 2, 9])
@pytest.mark.parametrize("labelled", [True, False])
def test_a_handful_of_images(n: int, labelled: bool) -> None:
    assert plots(a_comparison(n, labelled=labelled, change=1), list("abcde"))


def test_broken_logits_are_left_out() -> None:
    comparison = a_comparison()
    errors = comparison.errors.copy()
    errors[3] = np.inf
    assert plots(replace(comparison, errors=errors), list("abcde"))
    assert plots(replace(comparison, errors=np.full_like(errors, np.inf)), list("abcde"))


def test_a_class_without_images_has_no_share() -> None:
    shares = _shares(np.array([True, False, True]), np.array([0, 0, 2]), 3)
    assert shares[0] == 50
    assert np.isnan(shares[1])
    assert shares[2] == 100
