from __future__ import annotations

import gc
import hashlib
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from model_store.cpu_features import CpuFeatures
from model_store.manifest import Precision
from model_store.store import EMBEDDED_MODELS, ModelStore, StoreError
from model_store.stored_model import StoredModel
from model_store.verified import describe_file
from service import providers
from service.config import ConfigError
from service.inference import precision as precision_module
from service.inference.session import Session
from service.providers import Share
from service.providers.base import ExecutionProvider
from service.providers.cpu import CPU
from service.settings import Provider, ProviderSettings
from tests.openvino import need_bf16
from tests.service.conftest import CLASSES, TinyModel, a_gate, publish_tiny


def some_images(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(count).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8))


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_logits_are_the_models(tiny_stored: StoredModel, tiny: TinyModel, count: int) -> None:
    session = Session(tiny_stored, "cpu", Share(1))
    images = some_images(count)
    logits = session.run(np.stack(images))["logits"]
    assert (logits.shape, logits.dtype) == ((count, CLASSES), np.float32)
    np.testing.assert_allclose(logits, tiny.logits(images), atol=1e-4)


def test_images_that_are_views_or_read_only(tiny_stored: StoredModel, tiny: TinyModel) -> None:
    session = Session(tiny_stored, "cpu", Share(1))
    image = some_images(1)[0]
    for view in (image[::-1], image.transpose(1, 0, 2), np.asfortranarray(image)):
        view.flags.writeable = False
        np.testing.assert_allclose(session.run(view[np.newaxis])["logits"], tiny.logits([view]), atol=1e-4)


def test_it_says_what_it_runs(tiny_stored: StoredModel) -> None:
    session = Session(tiny_stored, "cpu", Share(1))
    assert (session.provider, session.passed_over) == ("cpu", ())
    assert session.variant == tiny_stored.manifest.variant("fp32")


@pytest.mark.parametrize("slots", [1, 3])
def test_warming_up_runs_every_batch_size_in_every_slot(
    tiny_stored: StoredModel, monkeypatch: pytest.MonkeyPatch, slots: int
) -> None:
    session = Session(tiny_stored, "cpu", Share(slots))
    sizes: list[int] = []
    monkeypatch.setattr(session, "run", lambda batch: sizes.append(len(batch)))
    session.warm_up(4)
    assert sorted(sizes) == sorted([1, 2, 3, 4] * slots)


def test_a_failure_while_warming_up_is_told(tiny_stored: StoredModel, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(tiny_stored, "cpu", Share(1))

    def broken(*_: Any) -> Any:
        raise RuntimeError("no memory")

    monkeypatch.setattr(session, "run", broken)
    with pytest.raises(RuntimeError, match="no memory"):
        session.warm_up(1)


@pytest.mark.parametrize(
    ("changes", "classes", "reason"),
    [
        ({"name": "pixels_in"}, None, "input"),
        ({"input_type": TensorProto.FLOAT}, None, "input"),
        ({}, CLASSES + 1, "logits"),
    ],
)
def test_a_graph_that_is_not_what_its_manifest_says(
    tmp_path: Path, tiny: TinyModel, changes: dict[str, Any], classes: int | None, reason: str
) -> None:
    stored = publish_tiny(tmp_path, model=tiny, proto=tiny.proto(**changes), classes=classes)
    with pytest.raises(StoreError, match=reason):
        Session(stored, "cpu", Share(1))


def test_a_graph_without_logits(tmp_path: Path, tiny: TinyModel) -> None:
    proto = tiny.proto()
    del proto.graph.output[0]
    with pytest.raises(StoreError, match="logits"):
        Session(publish_tiny(tmp_path, model=tiny, proto=proto), "cpu", Share(1))


def test_a_graph_of_a_fixed_batch_size(tmp_path: Path, tiny: TinyModel) -> None:
    """Batches are of any size, so the first dimension must be free; better told before than by the warm-up."""
    proto = tiny.proto()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(StoreError, match="input"):
        Session(publish_tiny(tmp_path, model=tiny, proto=proto), "cpu", Share(1))


# Which variant runs


@pytest.fixture(scope="module")
def others() -> dict[Precision, TinyModel]:
    """Models with answers of their own, so that one can tell which of them ran."""
    return {"int8": TinyModel(seed=8), "fp16": TinyModel(seed=16)}


@pytest.fixture
def with_others(tmp_path: Path, tiny: TinyModel, others: dict[Precision, TinyModel]) -> StoredModel:
    """``tiny`` in int8, gated on a CPU, and in fp16, gated on a GPU."""
    gates = {"int8": a_gate(), "fp16": a_gate(provider="cuda")}
    return publish_tiny(tmp_path, model=tiny, others={name: (others[name], gates[name]) for name in others})


def ran(session: Session, model: TinyModel) -> bool:
    images = some_images(3)
    return np.allclose(session.run(images)["logits"], model.logits(images), atol=1e-4)


@pytest.fixture
def poor_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """One without instructions for int8."""
    monkeypatch.setattr(precision_module, "cpu_features", lambda: CpuFeatures(int8_dot=False, bf16=False))


def test_the_variant_that_is_chosen_runs(with_others: StoredModel, others: dict[Precision, TinyModel]) -> None:
    session = Session(with_others, "cpu", Share(1))
    assert session.variant.precision == "int8"
    assert ran(session, others["int8"])


@pytest.mark.usefixtures("poor_cpu")
def test_why_a_faster_variant_does_not_run_is_logged(
    with_others: StoredModel, tiny: TinyModel, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "service"):
        session = Session(with_others, "cpu", Share(1))
    assert session.variant.precision == "fp32"
    assert ran(session, tiny)
    assert caplog.messages == ["model tiny version 1: int8 passed over: this CPU has no 8-bit dot product"]


@pytest.mark.usefixtures("poor_cpu")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_precision_by_name_runs(
    with_others: StoredModel,
    tiny: TinyModel,
    others: dict[Precision, TinyModel],
    precision: Precision,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("INFO", "service"):
        session = Session(with_others, "cpu", Share(1), precision)
    assert session.variant.precision == precision
    assert ran(session, {**others, "fp32": tiny}[precision])
    assert not caplog.messages


def opening(monkeypatch: pytest.MonkeyPatch, *order: Provider, broken: Sequence[Provider] = ()) -> list[Any]:
    """Providers to try, all of them the CPU one in truth; what they are asked to open."""
    opened: list[Any] = []

    def entry(name: Provider) -> ExecutionProvider:
        def open_it(model: bytes, share: Share, precision: Precision, options: ProviderSettings) -> Any:
            opened.append((name, hashlib.sha256(model).hexdigest(), precision))
            if name in broken:
                raise RuntimeError("no memory")
            return CPU.open(model, share, "fp32", options)

        return ExecutionProvider(name, lambda: None, open_it)

    monkeypatch.setattr(providers, "candidates", lambda _: (list(order), {}))
    monkeypatch.setattr(providers, "PROVIDERS", {name: entry(name) for name in order})
    return opened


def test_bf16_is_the_fp32_file_opened_in_another_arithmetic(
    tmp_path: Path, tiny: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = publish_tiny(tmp_path, model=tiny, others={"bf16": (tiny, a_gate(provider="openvino"))})
    opened = opening(monkeypatch, "openvino", "cpu", broken=["openvino"])
    session = Session(stored, "auto", Share(1))
    file = stored.variant("fp32").sha256
    assert opened == [("openvino", file, "bf16"), ("cpu", file, "fp32")]
    assert session.variant.precision == "fp32"
    with pytest.raises(ConfigError, match="cpu does not compute in it"):
        Session(stored, "auto", Share(1), "bf16")


@pytest.mark.parametrize(("precision", "least", "most"), [("fp32", 0, 1e-4), ("bf16", 1e-4, 0.1)])
def test_openvino_computes_in_what_it_says(precision: Precision, least: float, most: float) -> None:
    """On the embedded model: fp32 is fp32 where the CPU has bf16, and bf16 is no fp32."""
    need_bf16()
    stored = ModelStore(EMBEDDED_MODELS).resolve("cifar10-resnet16")
    images = list(np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8))
    expected = Session(stored, "cpu", Share(1), "fp32").run(images)["logits"]
    found = Session(stored, "openvino", Share(1), precision).run(images)["logits"]
    assert least <= np.abs(found - expected).max() / np.abs(expected).max() <= most


def test_a_fall_back_to_another_provider_takes_its_variant(
    with_others: StoredModel, others: dict[Precision, TinyModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA would run fp16; where it fails, the CPU runs int8."""
    opened = opening(monkeypatch, "cuda", "cpu", broken=["cuda"])
    session = Session(with_others, "auto", Share(1))
    fp16, int8 = (with_others.variant(precision).sha256 for precision in ("fp16", "int8"))
    assert opened == [("cuda", fp16, "fp16"), ("cpu", int8, "int8")]
    assert (session.provider, session.variant.precision) == ("cpu", "int8")
    assert ran(session, others["int8"])


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_precision_that_the_model_lacks(tiny_stored: StoredModel, precision: Precision) -> None:
    with pytest.raises(StoreError, match=f"no {precision} variant; there: fp32"):
        Session(tiny_stored, "cpu", Share(1), precision)


def test_what_was_verified_is_what_runs(tmp_path: Path, tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that changes between its check and its use is refused, or was used as it was."""
    stored = publish_tiny(tmp_path, model=tiny)
    stored.verify()
    path = stored.path(stored.manifest.variants[0])
    good = path.read_bytes()
    path.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    with pytest.raises(StoreError, match="SHA-256"):
        Session(stored, "cpu", Share(1))
    path.write_bytes(good)
    opened = CPU.open

    def change_then_open(model: object, *options: object) -> object:
        path.write_bytes(b"x" * len(good))
        return opened(model, *options)  # type: ignore[arg-type]

    monkeypatch.setattr(providers, "PROVIDERS", {"cpu": ExecutionProvider("cpu", CPU.check, change_then_open)})  # type: ignore[arg-type]
    session = Session(stored, "cpu", Share(1))
    images = some_images(2)
    np.testing.assert_allclose(session.run(np.stack(images))["logits"], tiny.logits(images), atol=1e-4)


def test_weights_in_another_file_are_refused(tmp_path: Path, tiny: TinyModel) -> None:
    stored = publish_tiny(tmp_path, model=tiny)
    path = stored.path(stored.manifest.variants[0])
    onnx.save(
        onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0,
        convert_attribute=True,
    )  # fmt: skip
    assert (stored.folder / "weights.bin").is_file()
    variant = stored.manifest.variants[0].model_copy(update=describe_file(path).model_dump())
    changed = stored.manifest.model_copy(update={"variants": [variant]})
    with pytest.raises(StoreError, match="keeps weights in another file"):
        Session(StoredModel(stored.folder, changed), "cpu", Share(1))


@pytest.mark.parametrize(("slots", "spread", "shares"), [(2, True, [2, 1]), (2, False, [2]), (1, True, [1])])
def test_all_cores_for_a_batch_alone(
    tiny_stored: StoredModel,
    tiny: TinyModel,
    monkeypatch: pytest.MonkeyPatch,
    slots: int,
    spread: bool,
    shares: list[int],
) -> None:
    """A second session, one call on all cores, where slots would share them; its answers are the same."""
    opened: list[int] = []

    def open_it(model: Any, share: Share, *others: Any) -> Any:
        opened.append(share.slots("cpu"))
        return CPU.open(model, share, *others)

    monkeypatch.setattr(providers, "PROVIDERS", {"cpu": ExecutionProvider("cpu", lambda: None, open_it)})
    session = Session(tiny_stored, "cpu", Share(slots), spread=spread)
    session.warm_up(2)
    assert opened == [slots]
    session.spread()
    assert opened == shares
    images = some_images(1)
    for alone in (True, False):
        np.testing.assert_allclose(session.run(np.stack(images), alone=alone)["logits"], tiny.logits(images), atol=1e-4)
    session.close()


@pytest.mark.parametrize("closed", [False, True])
def test_its_memory_is_freed_without_a_garbage_collection(tiny_stored: StoredModel, closed: bool) -> None:
    """What there is when a worker becomes ready is never collected (``service.process.memory.settle``)."""
    gc.collect()
    gc.disable()
    try:
        session = Session(tiny_stored, "cpu", Share(2), spread=True)
        session.spread()
        if closed:
            session.close()
        whole = weakref.ref(session)
        del session
        assert whole() is None
    finally:
        gc.enable()
