"""Small networks, checkpoints and images; nothing here needs the internet."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn

from export import convert
from export.downloads.http_client import open_client
from export.graphs.contract import Graph, Maps
from export.graphs.serving_graph import export_graph
from export.networks import specs
from export.networks.architecture import Spec
from export.networks.build import build
from export.networks.classifier import Classifier
from export.networks.resnet import ResNet
from model_store.manifest import Preprocessing

from .http_server import without_proxies

# One block a stage: exported in a moment, with every kind of layer but the 7x7 stem.
TINY = Spec("basic", (1, 1), "cifar", "A", stem_width=8, width=8, image_size=16)
TINY_INPUT = Preprocessing(height=16, width=16, resize=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """PyTorch's threads wait for each other for long where the cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


Network = TypeVar("Network", bound=nn.Module)


def perturb(net: Network, seed: int = 0) -> Network:
    """Statistics and biases as training leaves them, not the zeros and ones of a new network."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.running_var, module.weight):
                value.data.copy_(torch.rand(value.shape, generator=generator) + 0.5)
            for value in (module.running_mean, module.bias):
                value.data.copy_(torch.randn(value.shape, generator=generator) * 0.2)
        elif isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            module.bias.data.copy_(torch.randn(module.bias.shape, generator=generator) * 0.2)
    return net


@pytest.fixture(scope="session")
def tiny() -> ResNet:
    """A network of seven classes with 16x16 input."""
    return perturb(build(TINY, 7, seed=0))


@pytest.fixture(scope="session")
def tiny_graph(tiny: ResNet) -> Graph:
    return export_graph(tiny, TINY_INPUT)


@pytest.fixture(scope="session")
def tiny_onnx(tiny_graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    tiny_graph.save(path)
    return path


@pytest.fixture
def tiny_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """``--arch tiny`` is the network above."""
    monkeypatch.setattr(specs, "SPECS", {"tiny": TINY, **specs.SPECS})


_GRAPHS: dict[tuple[Spec, str, str, Maps], Graph] = {}


@pytest.fixture
def exported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """``convert`` exports the same network with the same preprocessing only once in a test run, as that is slow."""

    def export(net: ResNet, preprocessing: Preprocessing, maps: Maps = None) -> Graph:
        weights = b"".join(value.numpy().tobytes() for value in net.state_dict().values())
        # How images are resized is no part of the graph.
        given = preprocessing.model_dump_json(exclude={"resize", "resize_mode", "interpolation"})
        key = net.spec, given, hashlib.sha256(weights).hexdigest(), maps
        if key not in _GRAPHS:
            _GRAPHS[key] = export_graph(net, preprocessing, maps)
        return _GRAPHS[key]

    monkeypatch.setattr(convert, "export_graph", export)


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[..., Path]:
    """Writes seeded images, ``count`` a class folder, into a new folder; '' is the top."""

    def write(classes: tuple[str, ...] = ("cat", "dog"), count: int = 3, size: int = 16) -> Path:
        generator = np.random.default_rng(0)
        root = tmp_path / "pictures"
        for name in classes:
            (root / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = generator.integers(0, 256, (size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / name / f"{i}.png")
        return root

    return write


@pytest.fixture
def weights(tmp_path: Path, tiny: Classifier) -> Path:
    """A checkpoint of the tiny network, as a bare state dict."""
    path = tmp_path / "tiny.pth"
    torch.save(tiny.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def no_proxies() -> Iterator[None]:
    """Requests go to the servers of these tests, whatever this machine's environment says."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        without_proxies(monkeypatch)
        yield


@pytest.fixture(scope="module")
def http_client(no_proxies: None) -> Iterator[httpx.Client]:
    """One for all tests, as reading the certificates takes longer than most of them."""
    with open_client() as client:
        yield client
