"""A network that tells images apart without training, in a store, with images labelled by its own answers.

The tiny network's head is stretched so that seeded images get all kinds of
answers: fp32 is right on all of them, and a variant is as good as its agreement.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import torch
from onnxruntime.quantization.calibrate import TensorsData
from PIL import Image

from export.graphs.contract import Graph
from export.graphs.serving_graph import export_graph
from export.images.image_sets import ImageSet, Pixels, seeded_images
from export.networks.build import build
from export.variants.gate import cpu_logits
from export.variants.quantize import Calibrated, calibrate
from model_store.manifest import Architecture, Manifest, Parity, Source, Variant
from model_store.reports import CalibrationMethod
from model_store.store import LABELS_FILE, ModelStore
from model_store.stored_model import StoredModel
from model_store.verified import describe_file
from tests.export.conftest import TINY, TINY_INPUT, perturb

LABELS = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu")
CALIBRATION = seeded_images(TINY_INPUT, 24, seed=1)
IMAGES = seeded_images(TINY_INPUT, 60, seed=2)


@cache
def graph() -> Graph:
    net = perturb(build(TINY, len(LABELS), seed=0))
    pixels = np.stack(list(seeded_images(TINY_INPUT, 64, seed=3).read()))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (TINY_INPUT.mean, TINY_INPUT.std))
    with torch.inference_mode():
        features = net.features((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std).mean(dim=(2, 3))
        logits = net.fc(features)
        scale = 4 / logits.std(dim=0)
        net.fc.weight.mul_(scale[:, None])
        net.fc.bias.copy_((net.fc.bias - logits.mean(dim=0)) * scale)
    return export_graph(net, TINY_INPUT)


def save(folder: Path) -> Path:
    """The network as an fp32 file."""
    path = folder / "model.fp32.onnx"
    graph().save(path)
    return path


@cache
def calibrated(method: CalibrationMethod = "minmax") -> Calibrated:
    with tempfile.TemporaryDirectory() as folder:
        return calibrate(save(Path(folder)), method, CALIBRATION.read())


def answers(pixels: Pixels) -> list[int]:
    """fp32's classes."""
    return cpu_logits(graph().model.SerializeToString())(pixels).argmax(axis=1).tolist()


def labelled(images: ImageSet = IMAGES) -> ImageSet:
    """``images`` with fp32's answers as their labels."""
    targets = tuple(answers(np.stack(list(images.read()))))
    return ImageSet(images.name, images.count, targets, None, images.read)


def write(folder: Path, images: ImageSet = IMAGES, labels: bool = True) -> Path:
    """``images`` as PNG files, each in the folder of fp32's answer, or all at the top."""
    stack = np.stack(list(images.read()))
    for i, (pixels, answer) in enumerate(zip(stack, answers(stack), strict=True)):
        path = folder / (LABELS[answer] if labels else "") / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


def publish(root: Path) -> StoredModel:
    """The network as ``colours`` version 1 in a store at ``root``."""
    store = ModelStore(root)
    with store.staging() as staged:
        (staged / LABELS_FILE).write_text("".join(f"{label}\n" for label in LABELS))
        (staged / "README.md").write_text("# colours, version 1\n\n## Training\n\nBy stretching.\n")
        parity = Parity(
            images=1,
            image_source="made up",
            batch_sizes=[1],
            top1_agreement=1.0,
            max_absolute_error=0.0,
            max_relative_error=0.0,
            passed=True,
        )
        fp32 = describe_file(save(staged))
        manifest = Manifest(
            name="colours",
            version="1",
            created=datetime(2026, 1, 1, tzinfo=UTC),
            architecture=Architecture(name="tiny", spec={}, parameters=1),
            source=Source(origin="test", file="none.pth", sha256="0" * 64),
            preprocessing=TINY_INPUT,
            labels=describe_file(staged / LABELS_FILE),
            outputs=graph().outputs,
            opset=graph().opset,
            variants=[Variant(**fp32.model_dump(), precision="fp32", parity=parity)],
        )
        return store.publish(staged, manifest)


def shrunken(found: Calibrated, tensor_of: str | None = None, factor: float = 0.05) -> Calibrated:
    """``found`` with ranges far too small, of all feature maps or those of one layer: a ruined calibration."""
    names = set(found.ranges.keys())
    if tensor_of is not None:
        (layer,) = (layer for layer in found.layers if layer.name == tensor_of)
        names = {name for node in found.model.graph.node if node.name in layer.nodes for name in node.output}
    ranges = dict(_shrunken(found, names, factor))
    return Calibrated(found.model, TensorsData(found.ranges.calibration_method, ranges), found.nodes, found.layers)


def _shrunken(found: Calibrated, names: set[str], factor: float) -> Iterator[tuple[str, tuple[object, object]]]:
    for name in found.ranges.keys():  # noqa: SIM118 - the library's class is no mapping
        low, high = found.ranges[name].range_value
        scale = np.float32(factor if name in names else 1)
        yield name, (low * scale, high * scale)
