from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from service.errors import BadRequest, MissingOutput, NoHeatmap
from service.inference import readings
from service.inference.outputs import Outputs, Timings
from service.inference.pipeline import Pipeline
from service.inference.postprocess import softmax, top_k
from service.inference.readings import Reading
from tests.service.conftest import a_spec

LABELS = ("cat", "dog", "3", "cat", "ship")


def a_pipeline(embedding: int | None = 2, k: int | None = 2, energy: float | None = None) -> Pipeline:
    """As much of one as is read."""
    cam = None if k is None else SimpleNamespace(k=k)
    outputs = SimpleNamespace(classes=len(LABELS), embedding=embedding, cam=cam)
    calibration = None if energy is None else SimpleNamespace(energy=energy)
    manifest = SimpleNamespace(name="some", outputs=outputs, calibration=calibration, preprocessing=a_spec())
    return cast(
        "Pipeline",
        SimpleNamespace(
            stored=SimpleNamespace(manifest=manifest),
            labels=LABELS,
            probabilities=softmax,
            top=lambda k: lambda outputs: top_k(softmax(outputs.logits), LABELS, k),
        ),
    )


def some_outputs() -> Outputs:
    """Best is dog (1), then ship (4); the maps are of ones and of twos."""
    cam = np.stack([np.full((2, 2), 1.0), np.full((2, 2), 2.0)]).astype(np.float32)
    logits = np.array([0, 3, 1, 0, 2], np.float32)
    return Outputs(logits, np.array([3, 4], np.float32), cam, Timings(0.1, 0.2, 0.3), (20, 10))


def test_joined_readings_ask_for_each_output_once() -> None:
    pipeline = a_pipeline()
    parts = {
        "heatmap": readings.heatmap(pipeline, None),
        "predictions": readings.predictions(pipeline, 1),
        "embedding": readings.embedding(pipeline),
    }
    joined = readings.joined(parts)
    assert sorted(joined.outputs) == ["cam", "embedding", "logits"]
    assert list(joined.read(some_outputs())) == ["heatmap", "predictions", "embedding"]
    assert readings.joined({"predictions": parts["predictions"]}).outputs == ("logits",)


@pytest.mark.parametrize(("top_k", "count"), [(None, 5), (1, 1), (5, 5)])
def test_predictions(top_k: int | None, count: int) -> None:
    assert len(readings.predictions(a_pipeline(), top_k).read(some_outputs())) == count


def test_more_predictions_than_classes() -> None:
    with pytest.raises(BadRequest, match="from 1 to 5"):
        readings.predictions(a_pipeline(), 6)


def test_embeddings() -> None:
    assert readings.embedding(a_pipeline()).read(some_outputs()).tolist() == [3, 4]
    normalised = readings.embedding(a_pipeline(), normalize=True).read(some_outputs())
    assert normalised.tolist() == pytest.approx([0.6, 0.8])
    assert normalised.dtype == np.float32


def test_what_the_model_has_not() -> None:
    with pytest.raises(MissingOutput, match="'some' has no embedding"):
        readings.embedding(a_pipeline(embedding=None))
    with pytest.raises(MissingOutput, match="'some' has no heatmaps"):
        readings.heatmap(a_pipeline(k=None), None)


@pytest.mark.parametrize(("wanted", "index", "level"), [(None, 1, 1), ("dog", 1, 1), ("4", 4, 2), ("ship", 4, 2)])
def test_the_map_of_a_class(wanted: str | None, index: int, level: float) -> None:
    heatmap = readings.heatmap(a_pipeline(), wanted).read(some_outputs())
    assert (heatmap.index, heatmap.label) == (index, LABELS[index])
    assert (heatmap.grid == level).all()
    assert heatmap.logit == some_outputs().logits[index]
    assert heatmap.bias == heatmap.logit - level
    assert (heatmap.box, heatmap.size) == ((5, 0, 15, 10), (20, 10))


def test_equal_logits_have_their_maps_by_index() -> None:
    """As ONNX' TopK orders them."""
    tied = Outputs(np.zeros(5, np.float32), None, some_outputs().cam, some_outputs().timings, (8, 8))
    assert readings.heatmap(a_pipeline(), None).read(tied).index == 0
    assert (readings.heatmap(a_pipeline(), "dog").read(tied).grid == 2).all()


def test_a_class_without_a_map() -> None:
    reading = readings.heatmap(a_pipeline(), "0")
    with pytest.raises(NoHeatmap, match="dog, ship"):
        reading.read(some_outputs())


@pytest.mark.parametrize(("text", "index"), [("dog", 1), ("ship", 4), ("3", 2), ("0", 0), ("4", 4), ("01", 1)])
def test_a_class_by_label_or_index(text: str, index: int) -> None:
    assert readings.class_index(text, LABELS) == index


@pytest.mark.parametrize("text", ["", "5", "-1", "Dog", "dog ", "1.0", "9999999"])
def test_no_class(text: str) -> None:
    with pytest.raises(BadRequest, match="neither a label nor an index from 0 to 4"):
        readings.class_index(text, LABELS)


def test_a_label_of_several_classes() -> None:
    with pytest.raises(BadRequest, match=r"\[0, 3\]"):
        readings.class_index("cat", LABELS)


@pytest.mark.parametrize(("threshold", "strange"), [(None, None), (0.0, False), (100.0, True)])
def test_scores(threshold: float | None, strange: bool | None) -> None:
    found = readings.scores(a_pipeline(energy=threshold)).read(some_outputs())
    assert found["max_logit"] == 3
    assert found["energy"] == pytest.approx(np.logaddexp.reduce([0, 3, 1, 0, 2]))
    assert found["out_of_distribution"] is strange


@pytest.mark.parametrize(("least", "abstained"), [(0.0, False), (0.6, False), (0.7, True)])
def test_abstaining(least: float, abstained: bool) -> None:
    parts: dict[str, Reading] = {"predictions": readings.predictions(a_pipeline(), 2)}
    result: Any = readings.abstaining(readings.joined(parts), a_pipeline(), least).read(some_outputs())
    assert result["abstained"] is abstained
    assert len(result["predictions"]) == (0 if abstained else 2)
