from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from model_store.store import StoredModel, StoreError
from service.providers import Share
from service.session import Session
from tests.service.conftest import CLASSES, TinyModel, publish_tiny


def some_images(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(count).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8))


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_logits_are_the_models(tiny_stored: StoredModel, tiny: TinyModel, count: int) -> None:
    session = Session(tiny_stored, "cpu", Share(1))
    images = some_images(count)
    logits = session.logits(images)
    assert (logits.shape, logits.dtype) == ((count, CLASSES), np.float32)
    np.testing.assert_allclose(logits, tiny.logits(images), atol=1e-4)


def test_images_that_are_views_or_read_only(tiny_stored: StoredModel, tiny: TinyModel) -> None:
    session = Session(tiny_stored, "cpu", Share(1))
    image = some_images(1)[0]
    for view in (image[::-1], image.transpose(1, 0, 2), np.asfortranarray(image)):
        view.flags.writeable = False
        np.testing.assert_allclose(session.logits([view]), tiny.logits([view]), atol=1e-4)
        np.testing.assert_allclose(session.logits([view, image]), tiny.logits([view, image]), atol=1e-4)


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
    monkeypatch.setattr(session, "logits", lambda batch: sizes.append(len(batch)))
    session.warm_up(4)
    assert sorted(sizes) == sorted([1, 2, 3, 4] * slots)


def test_a_failure_while_warming_up_is_told(tiny_stored: StoredModel, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(tiny_stored, "cpu", Share(1))

    def broken(_: Any) -> Any:
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


def test_a_model_without_an_fp32_variant(tiny_stored: StoredModel) -> None:
    manifest = tiny_stored.manifest
    only = [manifest.variants[0].model_copy(update={"precision": "int8"})]
    with pytest.raises(StoreError, match="no fp32 variant"):
        Session(StoredModel(tiny_stored.folder, manifest.model_copy(update={"variants": only})), "cpu", Share(1))
