"""The deepest network of the family, with seeded weights, from checkpoint to answer."""

from __future__ import annotations

import io
import resource
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from export.networks.build import build
from export.networks.classifier import Classifier
from export.networks.specs import SPECS
from export.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from tests.end_to_end.conftest import ROOT, picture, running

DEEPEST = "cifar_resnet1202"


def with_statistics(net: Classifier) -> Classifier:
    """``net`` with BatchNorm statistics of its own, as training leaves them; without, 600 sums overflow."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics of what it sees
    with torch.no_grad():
        net.train()(torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    return net.eval()


@pytest.mark.slow(first=True)
def test_1202_layers_export_verify_and_serve(tmp_path: Path) -> None:
    net = with_statistics(build(SPECS[DEEPEST], 10, seed=0))
    torch.save(net.state_dict(), tmp_path / "deep.pth")
    command = [sys.executable, "-m", "export", str(tmp_path / "deep.pth"), "--arch", DEEPEST, "--name", "deep"]
    began = time.perf_counter()
    subprocess.run([*command, "--store", str(tmp_path / "store")], cwd=ROOT, check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(f"exported in {time.perf_counter() - began:.0f} s with {peak / 1e9:.1f} GB at most")  # noqa: T201
    photo = picture(1, (32, 32), "PNG")
    with running(RESNET_MODEL_STORE=str(tmp_path / "store"), RESNET_MAX_BATCH="2") as server:
        answer = httpx.post(f"{server.url}/v1/classify?top_k=10", content=photo, timeout=60).raise_for_status().json()
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(photo)))).permute(2, 0, 1)[None] / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.inference_mode():
        expected = net((pixels - mean) / std).softmax(1)[0]
    (result,) = answer["results"]
    for prediction in result["predictions"]:
        assert prediction["probability"] == pytest.approx(float(expected[prediction["index"]]), abs=1e-3)
