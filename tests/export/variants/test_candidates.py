"""Which layers are given up, in which order, and when that ends."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from rich.console import Console

from export.graphs.contract import GraphError
from export.variants import candidates as module
from export.variants.candidates import FALLBACKS, Candidate, Candidates, Rules
from export.variants.gate import Thresholds
from export.variants.half import too_large
from export.variants.quantize import Calibrated
from model_store.stored_model import StoredModel
from tests.export import colours

# Six of sixty images: the network is too small for the real threshold.
LOOSE = Thresholds(max_accuracy_drop=0.1, min_agreement=0.9)
IMPOSSIBLE = Thresholds(max_accuracy_drop=0, min_agreement=1)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    return colours.publish(tmp_path_factory.mktemp("store"))


def best(
    stored: StoredModel,
    calibrated: Calibrated,
    rules: Rules,
    console: Console,
    precision: Literal["int8", "fp16"] = "int8",
) -> Candidate:
    file = stored.path(stored.manifest.variants[0])
    found = Candidates(stored.manifest, file, precision, calibrated, colours.labelled(), colours.CALIBRATION, console)
    return found.best(colours.LABELS, rules)


def said(console: Console) -> str:
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_what_passes_at_once_gives_up_nothing(stored: StoredModel, console: Console) -> None:
    found = best(stored, colours.calibrated(), Rules(LOOSE), console)
    assert found.verdict.gate.passed
    assert (found.float_layers, found.float_nodes, found.harms) == ((), frozenset(), ())
    assert "worst" not in said(console)


def test_a_spoilt_layer_falls_back_to_fp32(stored: StoredModel, console: Console) -> None:
    """The first attempt fails, one layer is not enough as the next one reads the same feature map, two are."""
    found = best(stored, colours.shrunken(colours.calibrated(), "layer1.0.conv1"), Rules(LOOSE), console)
    assert found.verdict.gate.passed
    assert {layer.name for layer in found.float_layers} == {"layer1.0.conv1", "layer1.0.conv2"}
    assert found.float_nodes == {node for layer in found.float_layers for node in layer.nodes}
    assert len(found.harms) == 7
    assert said(console).count("the gate refuses") == 2


def test_what_no_few_layers_can_mend_is_refused_with_its_worst_layers(stored: StoredModel, console: Console) -> None:
    found = best(stored, colours.shrunken(colours.calibrated()), Rules(Thresholds()), console)
    assert found.verdict.reasons
    assert not found.verdict.gate.passed
    assert len(found.float_layers) == FALLBACKS[-1]
    assert len(found.harms) == 7
    assert said(console).count("comparing with fp32") == 1 + len(FALLBACKS)


def test_no_fall_back_where_none_is_wanted(stored: StoredModel, console: Console) -> None:
    found = best(stored, colours.shrunken(colours.calibrated()), Rules(Thresholds(), fallback=0), console)
    assert found.verdict.reasons
    assert found.float_layers == ()
    assert len(found.harms) == 7
    assert said(console).count("comparing with fp32") == 1


@pytest.mark.parametrize(("wanted", "kept"), [(1, 1), (3, 3), (100, 6)])
def test_a_number_of_layers_is_kept_in_any_case(stored: StoredModel, console: Console, wanted: int, kept: int) -> None:
    """At least one layer is left to quantize."""
    found = best(stored, colours.calibrated(), Rules(LOOSE, fallback=wanted), console)
    assert found.verdict.gate.passed
    assert len(found.float_layers) == kept
    assert found.float_layers == tuple(harm.layer for harm in found.harms[:kept])


def test_off_takes_what_comes(stored: StoredModel, console: Console) -> None:
    found = best(stored, colours.shrunken(colours.calibrated()), Rules(IMPOSSIBLE, off=True), console)
    assert found.verdict.reasons == ()
    assert found.verdict.gate.rule == "off"
    assert found.float_layers == ()


def test_fp16_passes_the_real_thresholds(stored: StoredModel, console: Console) -> None:
    found = best(stored, colours.calibrated(), Rules(Thresholds()), console, "fp16")
    assert found.verdict.gate.passed
    assert found.verdict.gate.accuracy == 1


def test_nodes_too_large_for_fp16_stay_in_fp32_and_are_no_candidates(
    stored: StoredModel, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrated = colours.calibrated()
    large = frozenset(calibrated.layers[0].nodes)
    monkeypatch.setattr(module, "too_large", lambda found: too_large(found) | large)
    found = best(stored, calibrated, Rules(IMPOSSIBLE, fallback=1), console, "fp16")
    assert large < found.float_nodes
    assert calibrated.layers[0] not in [harm.layer for harm in found.harms]
    kept = {node.name: node for node in found.model.graph.node}[calibrated.layers[0].nodes[0]]
    assert not kept.input[1].endswith("_fp16")


def test_a_graph_that_the_service_would_not_take_is_no_candidate(
    stored: StoredModel, console: Console, tmp_path: Path
) -> None:
    outputs = stored.manifest.outputs.model_copy(update={"classes": 8})
    other = StoredModel(tmp_path, stored.manifest.model_copy(update={"outputs": outputs}))
    file = stored.path(stored.manifest.variants[0])
    found = Candidates(other.manifest, file, "int8", colours.calibrated(), colours.IMAGES, colours.CALIBRATION, console)
    with pytest.raises(GraphError, match="the service expects"):
        found.best(colours.LABELS, Rules(LOOSE))
