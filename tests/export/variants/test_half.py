"""The fp16 graph: same inputs and outputs, nearly the same answers, and nothing too large for it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnxruntime.quantization.calibrate import TensorsData
from rich.console import Console

from export.graphs.contract import check_graph
from export.variants.gate import Thresholds, compare, cpu_logits, judge
from export.variants.half import halved, too_large
from export.variants.quantize import Calibrated, QuantizeError
from tests.export import colours
from tests.export.conftest import TINY_INPUT


@pytest.fixture(scope="module")
def fp16() -> onnx.ModelProto:
    return halved(colours.calibrated())


def types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    values = (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values} | {
        tensor.name: tensor.data_type for tensor in model.graph.initializer
    }


def test_it_is_what_the_service_expects(fp16: onnx.ModelProto) -> None:
    check_graph(fp16, TINY_INPUT, colours.graph().outputs)


def test_maps_and_weights_are_fp16_and_the_rest_fp32(fp16: onnx.ModelProto) -> None:
    found = types(fp16)
    for node in fp16.graph.node:
        if node.op_type in ("Conv", "Relu", "Add"):
            assert {found[name] for name in (*node.input, *node.output)} == {TensorProto.FLOAT16}, node.name
        if node.op_type in ("Sub", "Div", "ReduceMean", "Gemm", "MatMul"):
            assert {found[name] for name in node.output} == {TensorProto.FLOAT}, node.name
    (head,) = [node for node in fp16.graph.node if node.op_type == "Gemm"]
    assert found[head.input[1]] == TensorProto.FLOAT


def test_there_are_casts_only_where_the_two_meet(fp16: onnx.ModelProto) -> None:
    """One from pixels to numbers, one into fp16, one out of it."""
    assert Counter(node.op_type for node in fp16.graph.node)["Cast"] == 3


def test_no_weight_is_kept_twice(fp16: onnx.ModelProto) -> None:
    used = Counter(name for node in fp16.graph.node for name in node.input)
    assert all(used[tensor.name] for tensor in fp16.graph.initializer)
    large = {t.name: t.data_type for t in fp16.graph.initializer if len(t.dims) == 4}
    assert len(large) == 5
    assert set(large.values()) == {TensorProto.FLOAT16}


def test_it_answers_as_fp32_does(fp16: onnx.ModelProto, console: Console) -> None:
    baseline, variant = (cpu_logits(m.SerializeToString()) for m in (colours.graph().model, fp16))
    verdict = judge(compare(colours.labelled(), baseline, variant, console), colours.LABELS, Thresholds())
    assert verdict.reasons == ()
    assert 0 < verdict.gate.max_absolute_error < 0.05


def test_layers_can_be_kept_float() -> None:
    calibrated = colours.calibrated()
    (layer,) = [layer for layer in calibrated.layers if layer.name == "layer1.0.conv1"]
    mixed = halved(calibrated, frozenset(layer.nodes))
    check_graph(mixed, TINY_INPUT, colours.graph().outputs)
    found = types(mixed)
    (node,) = [node for node in mixed.graph.node if node.name == layer.nodes[0]]
    assert {found[name] for name in (*node.input, *node.output)} == {TensorProto.FLOAT}
    with pytest.raises(QuantizeError, match="nothing is left"):
        halved(calibrated, frozenset(calibrated.nodes))


def with_large(calibrated: Calibrated, tensor: str, value: float) -> Calibrated:
    ranges = {name: calibrated.ranges[name].range_value for name in calibrated.ranges.keys()}  # noqa: SIM118
    ranges[tensor] = (np.float32(-value), np.float32(0))
    return replace(calibrated, ranges=TensorsData(calibrated.ranges.calibration_method, ranges))


@pytest.mark.parametrize(("value", "large"), [(32_000, False), (33_000, True), (1e30, True)])
def test_what_meets_large_values_is_named(value: float, large: bool) -> None:
    calibrated = colours.calibrated()
    assert too_large(calibrated) == frozenset()
    relu = next(node for node in calibrated.model.graph.node if node.op_type == "Relu")
    consumers = {node.name for node in calibrated.model.graph.node if relu.output[0] in node.input}
    found = too_large(with_large(calibrated, relu.output[0], value))
    assert found == ({relu.name, *consumers} if large else set())


def test_a_weight_too_large_becomes_infinite_and_is_refused(console: Console) -> None:
    calibrated = colours.calibrated()
    model = onnx.ModelProto()
    model.CopyFrom(calibrated.model)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "net.layer2.0.conv1.weight")
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[0] = 1e6
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    made = halved(replace(calibrated, model=model))
    baseline = cpu_logits(colours.graph().model.SerializeToString())
    comparison = compare(colours.labelled(), baseline, cpu_logits(made.SerializeToString()), console)
    verdict = judge(comparison, colours.LABELS, Thresholds(), off=True)
    assert "not finite" in verdict.reasons[0]
