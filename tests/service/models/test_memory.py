"""What a version held is given back to the system when another has taken over."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ROOT

# In a process of its own: what other tests left in this one's memory would be measured, too.
PROGRAM = """
import asyncio, sys
from pathlib import Path

import numpy as np
import psutil
from onnx import TensorProto, helper, numpy_helper

from tests.service.conftest import SIDE, a_png, eventually, publish_tiny, serving, some_settings

root = Path(sys.argv[1])
WIDTH = 2_000_000  # 80 MB of weights

def publish(version):
    random = np.random.default_rng(version)
    first = random.normal(0, 0.01, (3, WIDTH)).astype(np.float32)
    second = random.normal(0, 0.01, (WIDTH, 7)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["means"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["means", "first"], ["wide"]),
        helper.make_node("MatMul", ["wide", "second"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes, "large",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 7])],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    publish_tiny(root, "tiny", str(version), proto=proto)

async def use(runtime):
    held = []
    for version in range(2, 7):
        await asyncio.to_thread(publish, version)
        await runtime.lifecycle.refresh()
        await eventually(lambda: not runtime.lifecycle.draining)
        with runtime.use(None, None) as pipeline:
            await pipeline.run(a_png(), pipeline.top(1), float("inf"))
            assert pipeline.stored.manifest.version == str(version)
        held.append(psutil.Process().memory_info().rss / 2**20)
    print(" ".join(f"{megabytes:.0f}" for megabytes in held))

publish(1)
serving(some_settings(root, watch_s=0, max_batch=2), use)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_versions_that_were_served(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    held = [int(megabytes) for megabytes in done.stdout.split()]
    print(f"resident after each of {len(held)} versions of 80 MB, MB: {held}")  # noqa: T201
    assert max(held[1:]) - held[0] < 80, f"what old versions held is not given back: {held} MB"
