"""The whole table through the graph: every kind of network, one block a stage, equals PyTorch in ONNX Runtime.

What a row adds to another of the same kind is depth, which changes nothing in how a block is exported.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from export.graphs.serving_graph import export_graph
from export.images.image_sets import seeded_images
from export.networks.architecture import AnySpec
from export.networks.build import build
from export.networks.specs import SPECS
from export.parity import measure, onnx_runner
from export.torch_reference import torch_reference
from model_store.manifest import Preprocessing

from .conftest import perturb

CLASSES = 6
FAST = ("densenet121", "cifar_highway11", "resnetv2_50", "ecaresnet26t")


def _kinds() -> dict[AnySpec, str]:
    """Each row, cut to one block a stage (a highway stage needs two layers) and a small image, by its first name."""
    kinds: dict[AnySpec, str] = {}
    for name, spec in SPECS.items():
        layers = 2 if name.startswith("cifar_highway") else 1
        small = replace(spec, depths=(layers,) * len(spec.depths), image_size=32 if spec.cifar else 64)
        kinds.setdefault(small, name)
    return kinds


KINDS = {name: spec for spec, name in _kinds().items()}


def test_kinds_are_few_and_cover_the_table() -> None:
    assert len(SPECS) > 90
    assert 25 < len(KINDS) < len(SPECS)
    assert KINDS.keys() >= set(FAST)


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in KINDS])
def test_exported_equals_pytorch(name: str, tmp_path: Path, console: Console) -> None:
    spec = KINDS[name]
    size = spec.image_size
    net = perturb(build(spec, CLASSES, seed=0))
    preprocessing = Preprocessing(height=size, width=size, resize=size, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    graph = export_graph(net, preprocessing)
    graph.save(tmp_path / "net.onnx")
    verdict = measure(
        seeded_images(preprocessing, count=12),
        torch_reference(net, preprocessing),
        onnx_runner(tmp_path / "net.onnx"),
        [f"class {i}" for i in range(CLASSES)],
        console,
    )
    assert not verdict.reasons
    assert graph.outputs.cam is not None
    assert graph.outputs.embedding == spec.embedding_size
