"""The gate: equal files pass, ruined ones do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from rich.console import Console

from export.graphs.contract import Graph
from export.images.image_sets import real_images, seeded_images
from export.networks.resnet import ResNet
from export.parity import (
    BATCH_SIZES,
    Exported,
    Limits,
    ParityError,
    Pixels,
    Reference,
    Verdict,
    agreement,
    compare,
    measure,
    onnx_runner,
)
from export.torch_reference import torch_reference

from .conftest import TINY_INPUT

LABELS = tuple("abcdefg")
Change = Callable[[Exported], Exported]


def verdict(
    net: ResNet, exported: Callable[[Pixels], Exported], console: Console, limits: Limits | None = None
) -> Verdict:
    reference = torch_reference(net, TINY_INPUT)
    return measure(seeded_images(TINY_INPUT), reference, exported, LABELS, console, limits or Limits())


def test_exported_file_passes(tiny: ResNet, tiny_onnx: Path, console: Console) -> None:
    found = verdict(tiny, onnx_runner(tiny_onnx), console)
    parity = found.parity
    assert parity.passed
    assert found.reasons == ()
    assert (parity.images, parity.image_source, parity.batch_sizes) == (24, "seeded (seed 0)", [1, 3, 8])
    assert parity.top1_agreement == 1.0
    assert 0 <= parity.max_relative_error < 1e-5
    assert parity.accuracy is None


@pytest.mark.parametrize("count", [1, 2, 11, 12, 13, 50])
def test_every_batch_size_runs_whatever_the_number_of_images(
    tiny: ResNet, tiny_onnx: Path, console: Console, count: int
) -> None:
    sizes: set[int] = set()
    run = onnx_runner(tiny_onnx)

    def exported(pixels: Pixels) -> Exported:
        sizes.add(len(pixels))
        return run(pixels)

    images = seeded_images(TINY_INPUT, count)
    found = measure(images, torch_reference(tiny, TINY_INPUT), exported, LABELS, console)
    assert sizes == set(BATCH_SIZES)
    assert found.parity.images == count
    assert found.parity.passed


def _logits(result: Exported) -> Exported:
    return replace(result, logits=result.logits * 1.001)


def _embedding(result: Exported) -> Exported:
    return replace(result, embedding=result.embedding + 0.01)


def _maps(result: Exported) -> Exported:
    assert result.cam is not None
    return replace(result, cam=result.cam[:, ::-1])


def _classes(result: Exported) -> Exported:
    return replace(result, logits=np.roll(result.logits, 1, axis=1))


@pytest.mark.parametrize(
    ("change", "reason"),
    [(_logits, "logits differ"), (_embedding, "embeddings differ"), (_maps, "maps differ"), (_classes, "top classes")],
)
def test_each_difference_fails(tiny: ResNet, tiny_onnx: Path, console: Console, change: Change, reason: str) -> None:
    run = onnx_runner(tiny_onnx)
    found = verdict(tiny, lambda pixels: change(run(pixels)), console)
    assert not found.parity.passed
    assert any(reason in text for text in found.reasons)


def test_wrong_normalisation_in_the_graph_fails(tiny: ResNet, tiny_onnx: Path, console: Console) -> None:
    other = TINY_INPUT.model_copy(update={"mean": (0.4, 0.5, 0.61)})
    found = measure(seeded_images(TINY_INPUT), torch_reference(tiny, other), onnx_runner(tiny_onnx), LABELS, console)
    assert not found.parity.passed


def test_values_that_are_not_finite_are_refused(
    tiny: ResNet, tiny_graph: Graph, tmp_path: Path, console: Console
) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(tiny_graph.model)
    bias = next(t for t in model.graph.initializer if t.name.endswith("fc.bias"))
    bias.CopyFrom(numpy_helper.from_array(np.full(7, np.nan, np.float32), bias.name))
    path = tmp_path / "nan.onnx"
    onnx.save(model, path)
    with pytest.raises(ParityError, match="not finite"):
        verdict(tiny, onnx_runner(path), console)


def test_file_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(ParityError, match="cannot load"):
        onnx_runner(path)


def test_file_without_maps_is_compared_without_them(tiny: ResNet, tiny_onnx: Path, console: Console) -> None:
    run = onnx_runner(tiny_onnx)
    found = verdict(tiny, lambda pixels: replace(run(pixels), cam=None), console)
    assert found.parity.passed
    assert found.errors.cam == 0.0


def test_reference_without_embedding_is_compared_by_logits(tiny: ResNet, tiny_onnx: Path, console: Console) -> None:
    reference = torch_reference(tiny, TINY_INPUT)

    def logits_alone(pixels: Pixels) -> Reference:
        return replace(reference(pixels), embedding=None, maps=None, bias=None)

    found = measure(seeded_images(TINY_INPUT), logits_alone, onnx_runner(tiny_onnx), LABELS, console)
    assert found.parity.passed
    assert (found.errors.embedding, found.errors.cam) == (0.0, 0.0)


def test_channel_order_is_part_of_the_reference(tiny: ResNet, tiny_onnx: Path, console: Console) -> None:
    bgr = TINY_INPUT.model_copy(update={"channel_order": "bgr"})
    found = measure(seeded_images(bgr), torch_reference(tiny, bgr), onnx_runner(tiny_onnx), LABELS, console)
    assert any("logits differ" in reason for reason in found.reasons)


def test_file_that_fails_while_it_runs(tiny_onnx: Path) -> None:
    with pytest.raises(ParityError, match="cannot run the file on 2 images"):
        onnx_runner(tiny_onnx)(np.zeros((2, 15, 16, 3), np.uint8))


def test_ties_are_no_disagreement() -> None:
    expected = np.array([[1.0, 1.0 - 5e-5, 0.0], [1.0, 0.9, 0.0]], np.float32)
    found = np.array([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]], np.float32)
    assert agreement(expected, found, tie=1e-4).tolist() == [True, False]
    assert agreement(expected, expected, tie=0.0).tolist() == [True, True]


def test_errors_are_the_worst_image_relative_to_its_own_logits(tiny: ResNet, tiny_onnx: Path) -> None:
    pixels = np.stack(list(seeded_images(TINY_INPUT, 4).read()))
    reference, exported = torch_reference(tiny, TINY_INPUT)(pixels), onnx_runner(tiny_onnx)(pixels)
    logits = exported.logits.copy()
    logits[2, 3] += 0.25
    errors = compare(reference, replace(exported, logits=logits, cam=None))
    assert errors.absolute == pytest.approx(0.25, rel=1e-3)
    assert errors.logits == pytest.approx(0.25 / np.abs(reference.logits[2]).max(), rel=1e-3)


def test_accuracy_of_labelled_images(
    tiny: ResNet, tiny_onnx: Path, console: Console, pictures: Callable[..., Path]
) -> None:
    images = real_images(pictures(("b", "f"), count=20), TINY_INPUT, LABELS)
    reference = torch_reference(tiny, TINY_INPUT)
    found = measure(images, reference, onnx_runner(tiny_onnx), LABELS, console).parity
    predicted = reference(np.stack(list(images.read()))).logits.argmax(axis=1)
    assert found.images == 40
    assert found.accuracy
    assert found.accuracy.pytorch == found.accuracy.exported == (predicted == images.targets).mean()
    assert found.accuracy.by_class == {"b": (predicted[:20] == 1).mean(), "f": (predicted[20:] == 5).mean()}


def test_wider_limits_for_other_arithmetic(tiny: ResNet, tiny_onnx: Path, console: Console) -> None:
    run = onnx_runner(tiny_onnx)
    found = verdict(tiny, lambda pixels: _logits(run(pixels)), console, Limits(relative_error=0.01))
    assert found.parity.passed
