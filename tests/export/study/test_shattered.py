"""Gradients of scalar networks: the measures on series that are known, the claims on small networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from export.study import records, shattered
from export.study.shattered import ScalarNet, autocorrelation, covariance, gradients, spectral_slope
from export.study.training_runs import StudyError

WIDTH, SEEDS = 100, 8
SHALLOW = ScalarNet("plain", 1, width=WIDTH)
DEEP = ScalarNet("plain with BN", 24, width=WIDTH)
RESIDUAL = ScalarNet("residual", 50, 0.1, WIDTH)


def test_autocorrelation_is_the_textbook_sum() -> None:
    series = torch.randn(3, 40, generator=torch.Generator().manual_seed(1)).cumsum(1)
    expected = []
    for row in series.double().numpy():
        centred = row - row.mean()
        whole = np.correlate(centred, centred, "full")[len(row) - 1 :]
        expected.append(whole[:5] / whole[0])
    np.testing.assert_allclose(autocorrelation(series, 5).numpy(), np.mean(expected, 0), rtol=1e-5, atol=1e-6)


def test_autocorrelation_of_alternating_signs() -> None:
    signs = torch.tensor([1.0, -1.0]).repeat(1, 100)
    assert autocorrelation(signs, 3).tolist() == pytest.approx([1, -0.995, 0.99])


def test_noises_are_told_apart() -> None:
    white, brown = shattered.white_noise(), shattered.brown_noise()
    assert abs(autocorrelation(white)[1]) < 0.05
    assert autocorrelation(brown)[1] > 0.95
    assert abs(spectral_slope(white)) < 0.1
    assert 1.5 < spectral_slope(brown) < 2.2


def test_covariance_of_white_noise_is_the_identity() -> None:
    found = covariance(shattered.white_noise(4000, 16))
    torch.testing.assert_close(found, torch.eye(16), atol=0.08, rtol=0)


def test_steep_networks_count_no_more_in_the_covariance() -> None:
    rows = shattered.white_noise(50, 8)
    steep = rows.clone()
    steep[0] *= 1000
    torch.testing.assert_close(covariance(rows), covariance(steep), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("net", [SHALLOW, replace(SHALLOW, depth=3)], ids=str)
def test_gradient_is_the_slope_of_the_output(net: ScalarNet) -> None:
    x, step = shattered.grid(32), 1e-3
    found = gradients(net, seeds=1, points=32)[0]
    slope = (shattered.output(net, x + step, 0) - shattered.output(net, x - step, 0)).squeeze(1) / (2 * step)
    # A kink between the two inputs changes the slope on the way; most points have none.
    assert ((found - slope).abs() < 0.01).double().mean() > 0.7


def test_same_seed_same_network() -> None:
    x = shattered.grid(8)
    assert torch.equal(shattered.output(DEEP, x, 3), shattered.output(DEEP, x, 3))
    assert not torch.equal(shattered.output(DEEP, x, 3), shattered.output(DEEP, x, 4))


def test_residual_branches_scale_with_beta() -> None:
    """At beta zero nothing is left but the linear stem and head: one slope everywhere."""
    linear = gradients(replace(RESIDUAL, beta=0.0), seeds=1)[0]
    torch.testing.assert_close(linear, linear[:1].expand_as(linear))


def test_deep_plain_gradients_are_white_and_residual_ones_brown() -> None:
    """The paper's claim."""
    shallow, deep, residual = (gradients(net, SEEDS) for net in (SHALLOW, DEEP, RESIDUAL))
    assert autocorrelation(shallow)[5] > 0.7
    assert autocorrelation(deep)[1:].abs().max() < 0.15
    assert autocorrelation(residual)[5] > 0.5
    assert abs(spectral_slope(deep)) < 0.3
    assert spectral_slope(shallow) > 1.3
    assert spectral_slope(residual) > 1.3


@pytest.mark.parametrize("kind", ["plain", "plain with BN"])
def test_autocorrelation_of_plain_nets_falls_with_depth(kind: shattered.Kind) -> None:
    series = [gradients(ScalarNet(kind, depth, width=WIDTH), SEEDS) for depth in (1, 4, 16, 40)]
    correlations = [float(autocorrelation(rows)[5]) for rows in series]
    assert correlations[0] > correlations[1] > correlations[2] + 0.1
    assert correlations[3] < correlations[1]


def test_results_are_read_back(tmp_path: Path) -> None:
    found = shattered.measure_all(seeds=2, depths=(2,))
    assert [one.name for one in found][:3] == ["white noise", "brown noise", "1-layer plain"]
    assert len(found) == 3 + len(shattered.FAMILIES)
    records.save(found, tmp_path / "new" / "shattered.json")
    read = records.read(shattered.Shattering, tmp_path / "new" / "shattered.json")
    assert [one.name for one in read] == [one.name for one in found]
    assert read[0].autocorrelation == pytest.approx(found[0].autocorrelation)


@pytest.mark.parametrize("content", ["", "{", "[1]", '[{"name": "a"}]'])
def test_foreign_results_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(StudyError, match=r"a\.json"):
        records.read(shattered.Shattering, path)


def test_showcase_has_the_networks_of_the_papers_first_figure() -> None:
    shown = shattered.showcase(seeds=2)
    assert list(shown) == [
        "1-layer plain",
        "24-layer plain with BN",
        "50-layer residual, beta 0.1",
        "white noise",
        "brown noise",
    ]
    assert {rows.shape for rows in shown.values()} == {(2, 256)}
