from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from model_store.stored_model import StoredModel
from service.providers import Arithmetic, ProviderUnavailable, Share, candidates, open_session
from service.settings import ProviderSettings
from tests.openvino import need_openvino
from tests.service.conftest import TinyModel
from tests.service.providers.conftest import MODEL, FakeRuntime, check_answers, driver, plugin


def config_of(fake: FakeRuntime) -> Any:
    """What the last session told OpenVINO's CPU device."""
    config = json.loads(fake.sessions[-1].options.provider_options["load_config"])
    assert list(config) == ["CPU"]
    return config["CPU"]


@pytest.mark.parametrize(
    ("share", "streams", "threads"), [(Share(3), 3, 3), (Share(3, 1), 1, 3), (Share(8, 3), 3, 6), (Share(2, 4), 4, 4)]
)
def test_a_stream_a_slot_and_all_threads_among_them(
    fake: FakeRuntime, share: Share, streams: int, threads: int
) -> None:
    open_session(MODEL, "openvino", share)
    config = config_of(fake)
    assert (config["NUM_STREAMS"], config["INFERENCE_NUM_THREADS"]) == (str(streams), str(threads))
    assert "CACHE_DIR" not in config
    assert [(d.ep_name, d.device.type) for d in fake.sessions[-1].options.devices] == [("OpenVINO", "cpu")]


@pytest.mark.parametrize(("cpus", "kept"), [(2, None), (1, "NO")])
def test_threads_are_kept_to_cores_only_where_all_are_its_own(
    fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch, cpus: int, kept: str | None
) -> None:
    """Two workers would both be kept to the first cores; so would containers with a quota of a large machine."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {4, 5})
    open_session(MODEL, "openvino", Share(cpus))
    assert config_of(fake).get("ENABLE_CPU_PINNING") == kept


@pytest.mark.parametrize(("precision", "hint"), [("fp32", "f32"), ("int8", "f32"), ("fp16", "f32"), ("bf16", "bf16")])
def test_floats_are_fp32_unless_bf16_is_asked_for(fake: FakeRuntime, precision: Arithmetic, hint: str) -> None:
    open_session(lambda _: (MODEL, precision), "openvino", Share(2))
    assert config_of(fake)["INFERENCE_PRECISION_HINT"] == hint


def test_bf16_needs_a_cpu_that_has_it(fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin(monkeypatch, fake, capabilities="FP32 INT8")
    with pytest.raises(ProviderUnavailable, match="no bf16 instructions"):
        open_session(lambda _: (MODEL, "bf16"), "openvino", Share(2))
    open_session(MODEL, "openvino", Share(2))


def test_the_whole_graph_or_none(fake: FakeRuntime) -> None:
    open_session(MODEL, "openvino", Share(2))
    assert fake.sessions[-1].options.entries["session.disable_cpu_ep_fallback"] == "1"


def test_compiled_models_are_kept_in_a_folder_of_its_own(fake: FakeRuntime, tmp_path: Path) -> None:
    open_session(MODEL, "openvino", Share(2), ProviderSettings(cache_dir=tmp_path))
    folder = Path(config_of(fake)["CACHE_DIR"])
    assert folder == tmp_path / "openvino"
    assert folder.stat().st_mode & 0o777 == 0o700


def no_plugin(fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin(monkeypatch, None)


def plugin_without_cpu(fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.devices = fake.devices[:2]


def plugin_that_does_not_load(fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.register_error = RuntimeError("libtbb is missing")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (no_plugin, "onnxruntime-ep-openvino is not installed"),
        (plugin_without_cpu, "no CPU device"),
        (plugin_that_does_not_load, "libtbb is missing"),
    ],
)
def test_where_it_cannot_be_had(
    fake: FakeRuntime,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[FakeRuntime, pytest.MonkeyPatch], None],
    reason: str,
) -> None:
    driver(monkeypatch, None)
    change(fake, monkeypatch)
    opened = open_session(MODEL, "auto", Share(2))
    assert opened.provider == "cpu"
    assert reason in opened.passed_over[1]
    with pytest.raises(ProviderUnavailable, match=reason):
        candidates("openvino")


# The real one


@pytest.fixture
def real() -> None:
    need_openvino()


@pytest.mark.usefixtures("real")
@pytest.mark.parametrize("share", [Share(2), Share(2, 1)])
def test_a_real_session(tiny_stored: StoredModel, tiny: TinyModel, share: Share) -> None:
    opened = open_session(tiny_stored.folder / "fp32.onnx", "openvino", share)
    assert (opened.provider, opened.slots) == ("openvino", share.wanted_slots or 2)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(check_answers, opened.session, tiny, (1, 8, 2)) for _ in range(8)]:
            done.result()


@pytest.mark.usefixtures("real")
def test_sessions_for_one_image_and_for_many_live_side_by_side(tiny_stored: StoredModel, tiny: TinyModel) -> None:
    sessions = [open_session(tiny_stored.folder / "fp32.onnx", "openvino", Share(2, slots)) for slots in (None, 1)]
    for opened in (*sessions, *reversed(sessions)):
        check_answers(opened.session, tiny)


@pytest.mark.usefixtures("real")
def test_a_real_cache_is_filled_and_gives_the_same_answers(
    tiny_stored: StoredModel, tiny: TinyModel, tmp_path: Path
) -> None:
    settings = ProviderSettings(cache_dir=tmp_path)
    for _ in range(2):
        check_answers(open_session(tiny_stored.folder / "fp32.onnx", "openvino", Share(1), settings).session, tiny)
    assert list((tmp_path / "openvino").glob("*.blob"))
