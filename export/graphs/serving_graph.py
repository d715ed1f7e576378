"""The network as one ONNX graph, preprocessing inside, by PyTorch's exporter; ``export.graphs.contract`` says which."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from typing import Any, Final

import onnx
import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

from export.graphs.contract import (
    BGR,
    INPUT,
    OUTPUTS,
    Graph,
    GraphError,
    Maps,
    check_graph,
    map_count,
    rgb_normalisation,
)
from export.networks.classifier import Classifier
from model_store.manifest import ClassActivationMap, Outputs, Preprocessing

OPSET: Final = 20


class _Features(nn.Module):
    """``net.features`` as a module, its layers under the names they have in ``net``."""

    def __init__(self, net: Classifier) -> None:
        super().__init__()
        for name, layer in net.named_children():
            self.add_module(name, layer)
        self._whole = (net,)  # not one of the layers

    def forward(self, x: Tensor) -> Tensor:
        return self._whole[0].features(x)


class ServingGraph(nn.Module):
    """Pixels to logits, embedding and the top ``k`` class activation maps."""

    mean: Tensor
    std: Tensor
    order: Tensor | None

    def __init__(self, net: Classifier, preprocessing: Preprocessing, k: int) -> None:
        super().__init__()
        # The exporter would fold each BatchNorm into the convolution before it in the end, in twice the time.
        self.net = fuse(fx.symbolic_trace(_Features(net)), no_trace=True)
        self.fc = net.fc
        self.k = k
        mean, std = rgb_normalisation(preprocessing)
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("std", torch.from_numpy(std))
        self.register_buffer("order", torch.tensor(BGR) if preprocessing.channel_order == "bgr" else None)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = (image.to(torch.float32) - self.mean) / self.std
        x = x.permute(0, 3, 1, 2)
        if self.order is not None:
            x = x.index_select(1, self.order)
        features = self.net(x)
        embedding = features.mean(dim=(2, 3))
        logits = self.fc(embedding)
        top = torch.topk(logits, self.k, dim=1).indices
        # A flat index makes a plain Gather in ONNX; weight[top] makes a GatherND, which fewer providers run.
        weights = self.fc.weight.index_select(0, top.flatten()).reshape(-1, self.k, embedding.shape[1])
        maps = torch.matmul(weights, features.flatten(2))
        return logits, embedding, maps.reshape(-1, self.k, *features.shape[2:])


def export_graph(net: Classifier, preprocessing: Preprocessing, maps: Maps = None) -> Graph:
    """``net`` as a checked ONNX graph; ``GraphError`` where that fails."""
    classes = net.fc.out_features
    module = ServingGraph(net, preprocessing, map_count(classes, maps)).eval()
    image = torch.zeros(2, preprocessing.height, preprocessing.width, 3, dtype=torch.uint8)
    with torch.inference_mode():
        _, embedding, cam = module(image)
    k, height, width = cam.shape[1:]
    outputs = Outputs(
        classes=classes,
        embedding=embedding.shape[1],
        cam=ClassActivationMap(k=k, height=height, width=width),
    )
    model = _convert(module, image)
    _strip(model)
    check_graph(model, preprocessing, outputs)
    return Graph(model, outputs, _opset(model))


def _convert(module: ServingGraph, image: Tensor) -> onnx.ModelProto:
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                (image,),
                dynamo=True,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes={INPUT: {0: torch.export.Dim("batch", min=1)}},
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
    except (torch.onnx.OnnxExporterError, RuntimeError, ValueError) as error:
        raise GraphError(f"PyTorch cannot export the network: {error}") from error
    if program is None:
        raise GraphError("PyTorch exported nothing")
    return program.model_proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and hints (on standard output, and logged) off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _strip(model: onnx.ModelProto) -> None:
    """Remove the exporter's traces: paths of this machine, and bytes that differ from run to run."""
    graph = model.graph
    parts: tuple[Any, ...] = (model, graph, *graph.node, *graph.value_info, *graph.initializer)
    for part in parts:
        del part.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]


def _opset(model: onnx.ModelProto) -> int:
    return next(int(opset.version) for opset in model.opset_import if opset.domain in ("", "ai.onnx"))
