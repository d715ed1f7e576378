"""What the protocol says of the service and its models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from model_store.manifest import Manifest
from service import __version__
from service.inference.pipeline import Pipeline
from service.inference_protocol.tensors import INPUT
from service.runtime import Runtime


@dataclass(frozen=True, slots=True)
class TensorMetadata:
    """A tensor; a size that is the request's own is -1."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ServerMetadata:
    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


# Triton's names.
SERVER: Final = ServerMetadata("resnet-serving", __version__, ("binary_tensor_data", "classification", "parameters"))
_PLATFORM: Final = "onnxruntime_onnx"


def outputs_of(manifest: Manifest) -> dict[str, TensorMetadata]:
    """The outputs that can be asked of a model, by name."""
    outputs = manifest.outputs
    shapes: dict[str, tuple[int, ...]] = {"probabilities": (outputs.classes,), "logits": (outputs.classes,)}
    if outputs.embedding is not None:
        shapes["embedding"] = (outputs.embedding,)
    if outputs.cam is not None:
        shapes["cam"] = (outputs.cam.k, outputs.cam.height, outputs.cam.width)
    return {name: TensorMetadata(name, "FP32", (-1, *shape)) for name, shape in shapes.items()}


def model_metadata(runtime: Runtime, pipeline: Pipeline) -> ModelMetadata:
    """Of one of the models that ``runtime`` serves."""
    manifest = pipeline.stored.manifest
    served = (model.stored.manifest for model in runtime.models)
    versions = sorted((m.version for m in served if m.name == manifest.name), key=int)
    image = TensorMetadata(INPUT, "BYTES", (-1,))
    return ModelMetadata(manifest.name, tuple(versions), _PLATFORM, (image,), tuple(outputs_of(manifest).values()))
