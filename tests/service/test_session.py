from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from onnx import TensorProto

from model_store.manifest import Gate, Precision
from model_store.store import StoredModel, StoreError
from service import providers
from service.config import Provider
from service.providers import Share
from service.session import Session, check_precision, choose_variant
from tests.service.conftest import CLASSES, TinyModel, a_gate, publish_tiny


def some_images(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(count).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8))


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_logits_are_the_models(tiny_stored: StoredModel, tiny: TinyModel, count: int) -> None:
    session = Session(tiny_stored, "cpu", Share(1))
    images = some_images(count)
    logits = session.logits(np.stack(images))
    assert (logits.shape, logits.dtype) == ((count, CLASSES), np.float32)
    np.testing.assert_allclose(logits, tiny.logits(images), atol=1e-4)


def test_images_that_are_views_or_read_only(tiny_stored: StoredModel, tiny: TinyModel) -> None:
    session = Session(tiny_stored, "cpu", Share(1))
    image = some_images(1)[0]
    for view in (image[::-1], image.transpose(1, 0, 2), np.asfortranarray(image)):
        view.flags.writeable = False
        np.testing.assert_allclose(session.logits(view[np.newaxis]), tiny.logits([view]), atol=1e-4)


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
    monkeypatch.setattr(session, "logits", lambda batch, alone=False: sizes.append(-1 if alone else len(batch)))
    session.warm_up(4)
    assert sorted(sizes) == sorted([-1] + [1, 2, 3, 4] * slots)  # -1: one image with all cores


def test_a_failure_while_warming_up_is_told(tiny_stored: StoredModel, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(tiny_stored, "cpu", Share(1))

    def broken(*_: Any) -> Any:
        raise RuntimeError("no memory")

    monkeypatch.setattr(session, "logits", broken)
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
    proto.graph.node[-1].output[0] = proto.graph.output[0].name = "other"
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


def publish_with(root: Path, tiny: TinyModel, others: dict[Precision, TinyModel], gate: Gate) -> StoredModel:
    return publish_tiny(root, model=tiny, others={name: (other, gate) for name, other in others.items()})


def ran(session: Session, model: TinyModel) -> bool:
    images = some_images(3)
    return np.allclose(session.logits(images), model.logits(images), atol=1e-4)


def test_auto_takes_the_gated_int8_variant_on_a_cpu(
    tmp_path: Path, tiny: TinyModel, others: dict[Precision, TinyModel]
) -> None:
    session = Session(publish_with(tmp_path, tiny, others, a_gate()), "cpu", Share(1))
    assert session.variant.precision == "int8"
    assert ran(session, others["int8"])


@pytest.mark.parametrize("gate", [a_gate("off", passed=False), a_gate("accuracy", passed=False)])
def test_auto_never_takes_an_ungated_variant(
    tmp_path: Path, tiny: TinyModel, others: dict[Precision, TinyModel], gate: Gate
) -> None:
    stored = publish_with(tmp_path, tiny, others, a_gate("off", passed=False))
    for variant in stored.manifest.variants[1:]:
        object.__setattr__(variant, "gate", gate)
    for provider in get_args(Provider):
        assert choose_variant(stored, "auto", provider).precision == "fp32"
    session = Session(stored, "cpu", Share(1))
    assert session.variant.precision == "fp32"
    assert ran(session, tiny)


def test_auto_takes_what_is_fast_on_the_provider(
    tmp_path: Path, tiny: TinyModel, others: dict[Precision, TinyModel]
) -> None:
    stored = publish_with(tmp_path, tiny, others, a_gate())
    wanted = {"cpu": "int8", "openvino": "int8", "cuda": "fp16"}
    assert {provider: choose_variant(stored, "auto", provider).precision for provider in get_args(Provider)} == wanted


def test_auto_falls_back_to_fp32(tiny_stored: StoredModel) -> None:
    for provider in get_args(Provider):
        assert choose_variant(tiny_stored, "auto", provider).precision == "fp32"


@pytest.mark.parametrize("gate", [a_gate(), a_gate("off", passed=False)])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_precision_by_name_is_that_one_gated_or_not(
    tmp_path: Path, tiny: TinyModel, others: dict[Precision, TinyModel], precision: Precision, gate: Gate
) -> None:
    stored = publish_with(tmp_path, tiny, others, gate)
    session = Session(stored, "cpu", Share(1), precision)
    assert session.variant.precision == precision
    assert ran(session, {**others, "fp32": tiny}[precision])
    check_precision(stored, precision)


def test_a_fall_back_to_another_provider_takes_its_variant(
    tmp_path: Path, tiny: TinyModel, others: dict[Precision, TinyModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA would run fp16; where it fails, the CPU runs int8."""
    opened: list[str] = []

    def broken(path: Path, _: Share) -> Any:
        opened.append(path.name)
        raise RuntimeError("no memory")

    monkeypatch.setattr(providers, "candidates", lambda _: (["cuda", "cpu"], []))
    entries = {**providers.PROVIDERS, "cuda": replace(providers.PROVIDERS["cuda"], open=broken)}
    monkeypatch.setattr(providers, "PROVIDERS", entries)
    session = Session(publish_with(tmp_path, tiny, others, a_gate()), "auto", Share(1))
    assert opened == ["fp16.onnx"]
    assert (session.provider, session.variant.precision) == ("cpu", "int8")
    assert ran(session, others["int8"])


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_precision_that_the_model_lacks(tiny_stored: StoredModel, precision: Precision) -> None:
    for call in (
        lambda: Session(tiny_stored, "cpu", Share(1), precision),
        lambda: check_precision(tiny_stored, precision),
    ):
        with pytest.raises(StoreError, match=f"no {precision} variant; there: fp32") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_model_without_an_fp32_variant(tiny_stored: StoredModel) -> None:
    manifest = tiny_stored.manifest
    only = [manifest.variants[0].model_copy(update={"precision": "fp16"})]
    stored = StoredModel(tiny_stored.folder, manifest.model_copy(update={"variants": only}))
    with pytest.raises(StoreError, match="no fp32 variant"):
        Session(stored, "cpu", Share(1))
    with pytest.raises(StoreError, match="no fp32 variant"):
        check_precision(stored, "auto")
