"""A tiny model whose answers numpy can compute, and a runtime that serves it."""

from __future__ import annotations

import asyncio
import copy
import io
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from model_store.cpu_features import CpuFeatures
from model_store.manifest import (
    Architecture,
    Calibration,
    ClassActivationMap,
    Gate,
    Manifest,
    Outputs,
    Parity,
    Precision,
    Preprocessing,
    Quantization,
    Source,
    Variant,
)
from model_store.reports import GateProvider, GateRule
from model_store.store import LABELS_FILE, ModelStore
from model_store.stored_model import StoredModel
from model_store.verified import describe_file
from service.config import Settings
from service.inference import precision
from service.metrics import Metrics
from service.process.workers import Workers
from service.runtime import Runtime

T = TypeVar("T")

SIDE = 8
CLASSES = 7
MAPS = 3


class TinyModel:
    """Logits = mean colour @ weights + bias; the same in numpy and as an ONNX file.

    The embedding is the mean colour, and the map of a class each pixel's colour @ its weights: its mean plus the bias
    is the logit. The graph has the maps of the ``maps`` best classes; with 0, neither maps nor embedding.
    """

    def __init__(self, seed: int = 0, classes: int = CLASSES, maps: int = MAPS) -> None:
        random = np.random.default_rng(seed)
        self.weights = random.normal(0, 0.02, (3, classes)).astype(np.float32)
        self.bias = random.normal(0, 0.5, classes).astype(np.float32)
        self.labels = tuple(f"class {i}" for i in range(classes))
        self.maps = min(maps, classes)

    def map_of(self, image: npt.NDArray[np.uint8], index: int) -> npt.NDArray[np.float32]:
        return image.astype(np.float32) @ self.weights[:, index]

    def logits(self, images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        means = np.stack(images).astype(np.float32).mean(axis=(1, 2))
        return means @ self.weights + self.bias

    def proto(self, *, input_type: int = TensorProto.UINT8, classes: int | None = None, name: str = "image") -> Any:
        shape = [len(self.labels)] if classes is None else [classes]
        nodes = [
            helper.make_node("Cast", [name], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["pixels"], ["means"], axes=[1, 2], keepdims=0),
            helper.make_node("MatMul", ["means", "weights"], ["scores"]),
            helper.make_node("Add", ["scores", "bias"], ["logits"]),
        ]
        weights = [numpy_helper.from_array(self.weights, "weights"), numpy_helper.from_array(self.bias, "bias")]
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", *shape])]
        if self.maps:
            nodes += [
                helper.make_node("Identity", ["means"], ["embedding"]),
                helper.make_node("MatMul", ["pixels", "weights"], ["every_map"]),
                helper.make_node("Transpose", ["every_map"], ["maps"], perm=[0, 3, 1, 2]),
                helper.make_node("TopK", ["logits", "k"], ["best", "classes"]),
                helper.make_node("Unsqueeze", ["classes", "last"], ["indices"]),
                helper.make_node("GatherND", ["maps", "indices"], ["cam"], batch_dims=1),
            ]
            weights += [
                numpy_helper.from_array(np.array([self.maps], np.int64), "k"),
                numpy_helper.from_array(np.array([2], np.int64), "last"),
            ]
            outputs += [
                helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 3]),
                helper.make_tensor_value_info("cam", TensorProto.FLOAT, ["batch", self.maps, SIDE, SIDE]),
            ]
        graph = helper.make_graph(
            nodes, "tiny", [helper.make_tensor_value_info(name, input_type, ["batch", SIDE, SIDE, 3])], outputs, weights
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def a_parity(passed: bool = True) -> Parity:
    return Parity(
        images=4,
        image_source="made up",
        batch_sizes=[1, 2],
        top1_agreement=1.0,
        max_absolute_error=0.0,
        max_relative_error=0.0,
        passed=passed,
    )


def a_gate(rule: GateRule = "agreement", passed: bool = True, provider: GateProvider = "cpu") -> Gate:
    return Gate(
        rule=rule,
        passed=passed,
        provider=provider,
        images=4,
        image_source="made up",
        top1_agreement=1.0,
        max_accuracy_drop=0.005,
        min_agreement=0.98,
        max_absolute_error=0.0,
    )


def a_spec(**changes: Any) -> Preprocessing:
    values = {"height": SIDE, "width": SIDE, "resize": SIDE, "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
    return Preprocessing(**(values | changes))


def publish_tiny(
    root: Path,
    name: str = "tiny",
    version: str = "1",
    model: TinyModel | None = None,
    proto: Any = None,
    classes: int | None = None,
    others: Mapping[Precision, tuple[TinyModel, Gate]] = MappingProxyType({}),
    calibration: Calibration | None = None,
) -> StoredModel:
    """Put ``model`` into the store at ``root`` as a real export would; ``others`` beside it, float inside though.

    Of a bf16 variant only the gate is taken: its file is the fp32 one.
    """
    model = model or TinyModel()
    store = ModelStore(root)
    with store.staging() as staged:
        onnx.save(proto or model.proto(), staged / "fp32.onnx")
        (staged / LABELS_FILE).write_text("\n".join(model.labels) + "\n", encoding="utf-8")
        file = describe_file(staged / "fp32.onnx")
        variants = [Variant(precision="fp32", parity=a_parity(), **file.model_dump())]
        how = Quantization(method="minmax", calibration_images=1, calibration_source="made up", float_nodes=[])
        for kind, (other, gate) in others.items():
            file = describe_file(staged / "fp32.onnx")
            if kind != "bf16":
                onnx.save(other.proto(), staged / f"{kind}.onnx")
                file = describe_file(staged / f"{kind}.onnx")
            variants.append(Variant(precision=kind, quantization=how, gate=gate, **file.model_dump()))
        manifest = Manifest(
            name=name,
            version=version,
            created=datetime(2026, 1, 1, tzinfo=UTC),
            architecture=Architecture(name="tiny", spec={"classes": 7}, parameters=28),
            source=Source(origin="test", file="none.pth", sha256="0" * 64),
            preprocessing=a_spec(),
            labels=describe_file(staged / LABELS_FILE),
            outputs=Outputs(
                classes=classes or len(model.labels),
                embedding=3 if model.maps else None,
                cam=ClassActivationMap(k=model.maps, height=SIDE, width=SIDE) if model.maps else None,
            ),
            opset=17,
            variants=variants,
            calibration=calibration,
        )
        return store.publish(staged, manifest)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def too_slow(count: int = 3_000_000) -> bytes:
    """A JPEG with so many segments that reading its header takes seconds."""
    plain = encode(a_picture(), "JPEG")
    return plain[:2] + b"\xff\xe5\x00\x02" * count + plain[2:]


def a_picture(seed: int = 0, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def a_png(seed: int = 0) -> bytes:
    """A lossless image of the network's size, so that the network sees exactly its pixels."""
    return encode(a_picture(seed))


def expected(model: TinyModel, seed: int, k: int) -> list[tuple[str, int, float]]:
    """What numpy says of ``a_png(seed)``: label, index and probability of the ``k`` best."""
    logits = model.logits([np.asarray(a_picture(seed))])[0].astype(np.float64)
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities, kind="stable")[:k]
    return [(model.labels[i], int(i), float(probabilities[i])) for i in order]


class Hold:
    """Stands in front of a function: calls wait until released; says what was computed."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.entered = threading.Event()
        self.released = threading.Event()
        self.batches: list[list[Any]] = []

    def __call__(self, batch: Any, *others: Any) -> Any:
        self.batches.append([*copy.deepcopy(batch)])  # the service's next batch is written to the same memory
        self.entered.set()
        assert self.released.wait(30), "the test never released the slot"
        return self._function(batch, *others)

    async def wait_entered(self) -> None:
        assert await asyncio.to_thread(self.entered.wait, 30), "nothing reached the slot"


async def turns(count: int = 20) -> None:
    """Let everything that is ready on the event loop run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def eventually(condition: Callable[[], bool], what: str = "the condition") -> None:
    """Give the loop turns (and threads time) until ``condition`` holds; fails after a generous while."""
    loop = asyncio.get_running_loop()
    limit = loop.time() + 30
    while not condition():
        assert loop.time() < limit, f"{what} never came"
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def _capable_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``auto`` takes does not depend on the machine that runs the tests."""
    monkeypatch.setattr(precision, "cpu_features", lambda: CpuFeatures(int8_dot=True, bf16=True))


@pytest.fixture(scope="session")
def tiny() -> TinyModel:
    return TinyModel()


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory, tiny: TinyModel) -> Path:
    """A store with the model ``tiny``, version 1; tests do not change it."""
    root = tmp_path_factory.mktemp("store")
    publish_tiny(root, model=tiny)
    return root


@pytest.fixture
def tiny_stored(tiny_root: Path) -> StoredModel:
    return ModelStore(tiny_root).resolve("tiny")


def some_settings(root: Path, **environ: object) -> Settings:
    """Settings for a small service over ``root``; ``max_queue=3`` stands for ``RESNET_MAX_QUEUE=3``."""
    base: dict[str, object] = {
        "model_store": root,
        "provider": "cpu",
        "slots": 1,
        "max_batch": 4,
        "deadline_s": 60,
    }
    return Settings.from_env({f"RESNET_{k.upper()}": str(v) for k, v in (base | environ).items()})


def serving(settings: Settings, use: Callable[[Runtime], Awaitable[T]]) -> T:
    """Start a runtime, ``use`` it, stop it."""

    async def main() -> T:
        runtime = Runtime(settings, Metrics(None), Workers(None, 1))
        try:
            await runtime.start()
            return await use(runtime)
        finally:
            await runtime.stop()

    return asyncio.run(main())


@pytest.fixture
def hold_model(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Runtime], Hold]]:
    """Makes the default model wait for the test; released at the end whatever happens."""
    holds: list[Hold] = []

    def install(runtime: Runtime) -> Hold:
        session = runtime.models[0].session
        hold = Hold(session.run)
        monkeypatch.setattr(session, "run", hold)
        holds.append(hold)
        return hold

    yield install
    for hold in holds:
        hold.released.set()
