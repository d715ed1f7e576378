"""Which provider is taken, and what is told of the others: ``service/providers/__init__.py``."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from model_store.stored_model import StoredModel
from service.config import ConfigError
from service.providers import (
    AUTO_ORDER,
    PROVIDERS,
    Arithmetic,
    ProviderUnavailable,
    Share,
    candidates,
    cuda,
    open_session,
    starts_on_gpu,
    tensorrt,
)
from service.settings import Provider, ProviderSettings
from tests.service.conftest import SIDE
from tests.service.providers.conftest import MODEL, FakeRuntime, driver, plugin


def test_every_provider_of_the_settings_is_there() -> None:
    assert set(PROVIDERS) == set(get_args(Provider))
    assert all(PROVIDERS[name].name == name for name in PROVIDERS)


def test_auto_takes_the_first_that_works(fake: FakeRuntime) -> None:
    assert AUTO_ORDER == ("cuda", "openvino", "cpu")
    opened = open_session(MODEL, "auto", Share(2))
    assert (opened.provider, opened.slots, opened.passed_over) == ("cuda", 2, ())


def test_what_was_not_asked_was_not_passed_over(fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin(monkeypatch, None)
    assert list(candidates("auto")[1]) == ["openvino"]
    assert open_session(MODEL, "auto", Share(2)).passed_over == ()


@pytest.mark.parametrize(
    ("gpus", "requested", "found"),
    [(1, "auto", True), (1, "tensorrt", True), (1, "openvino", False), (None, "auto", False), (None, "cuda", False)],
)
def test_what_starts_on_a_gpu(
    fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch, gpus: int | None, requested: Provider, found: bool
) -> None:
    driver(monkeypatch, gpus)
    assert starts_on_gpu(requested) is found


def test_tensorrt_is_only_had_by_name(fake: FakeRuntime) -> None:
    assert candidates("auto") == (["cuda", "openvino", "cpu"], {})
    assert candidates("tensorrt") == (["tensorrt"], {})


def test_auto_falls_back_and_says_why(fake: FakeRuntime, caplog: pytest.LogCaptureFixture) -> None:
    fake.broken = frozenset({cuda.NAME, "OpenVINO"})
    opened = open_session(MODEL, "auto", Share(1))
    assert opened.provider == "cpu"
    assert opened.passed_over == (f"cuda: {cuda.NAME} is broken", "openvino: OpenVINO is broken")
    assert "model.onnx" in caplog.text


@pytest.mark.parametrize("graphs", [False, True])
def test_auto_passes_over_a_gpu_that_opens_a_model_and_cannot_run_it(fake: FakeRuntime, graphs: bool) -> None:
    fake.no_kernels = frozenset({cuda.NAME})
    settings = ProviderSettings(cuda_graphs=graphs)
    opened = open_session(MODEL, "auto", Share(3), settings)
    assert (opened.provider, opened.slots) == ("openvino", 3)
    assert opened.passed_over == ("cuda: no kernel image is available for execution on the device",)
    with pytest.raises(ProviderUnavailable, match="cuda: no kernel image"):
        open_session(MODEL, "cuda", Share(3), settings)


def test_auto_tries_a_gpu_with_one_image_and_a_cpu_not_at_all(fake: FakeRuntime) -> None:
    open_session(MODEL, "auto", Share(3))
    binding, _ = fake.sessions[0].runs[0]
    image = binding.inputs["image"].data
    assert (image.shape, image.dtype, image.any()) == ((1, SIDE, SIDE, 3), np.uint8, False)
    assert set(binding.outputs) == {"logits", "embedding"}
    fake.broken = frozenset({cuda.NAME})
    open_session(MODEL, "auto", Share(3))
    assert not fake.sessions[1].runs


def test_auto_passes_over_what_is_not_there(fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    driver(monkeypatch, None)
    plugin(monkeypatch, None)
    opened = open_session(MODEL, "auto", Share(3))
    assert (opened.provider, opened.slots) == ("cpu", 3)
    assert [reason.partition(":")[0] for reason in opened.passed_over] == ["cuda", "openvino"]
    assert "Driver Not Loaded" in opened.passed_over[0]
    assert "not installed" in opened.passed_over[1]


def test_a_model_that_nobody_takes(fake: FakeRuntime) -> None:
    fake.broken = frozenset({tensorrt.NAME, cuda.NAME, "OpenVINO", "CPUExecutionProvider"})
    for requested in ("auto", *get_args(Provider)):
        with pytest.raises(ProviderUnavailable, match="is broken"):
            open_session(MODEL, requested, Share(1))


@pytest.mark.parametrize("requested", get_args(Provider))
def test_the_one_asked_for_is_the_only_one_tried(fake: FakeRuntime, requested: Provider) -> None:
    fake.broken = frozenset({tensorrt.NAME, cuda.NAME, "OpenVINO", "CPUExecutionProvider"})
    with pytest.raises(ProviderUnavailable, match=f"^{requested}: "):
        open_session(MODEL, requested, Share(1))
    assert fake.sessions == []
    assert bool(fake.registered) == (requested == "openvino")


def test_a_named_one_that_cannot_be_had_stops_before_any_model(
    fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(monkeypatch, 0)
    for name in ("cuda", "tensorrt"):
        with pytest.raises(ProviderUnavailable, match="no NVIDIA GPU"):
            candidates(name)  # type: ignore[arg-type]


def test_each_provider_gets_its_own_file_and_arithmetic(fake: FakeRuntime) -> None:
    fake.broken = frozenset({cuda.NAME})
    asked: list[Provider] = []

    def file(provider: Provider) -> tuple[Path, Arithmetic]:
        asked.append(provider)
        return Path(f"{provider}.onnx"), "bf16" if provider == "openvino" else "fp32"

    opened = open_session(file, "auto", Share(2))
    assert asked == ["cuda", "openvino"]
    assert opened.session.path == Path("openvino.onnx")  # type: ignore[attr-defined]
    assert "bf16" in opened.session.options.provider_options["load_config"]  # type: ignore[attr-defined]


def only(*having: Provider) -> Callable[[Provider], tuple[Path, Arithmetic]]:
    """A model that ``having`` alone have a file of, as one in bf16."""

    def file(provider: Provider) -> tuple[Path, Arithmetic]:
        if provider not in having:
            raise ConfigError(f"{provider} does not compute in it")
        return MODEL, "fp32"

    return file


def test_auto_passes_over_what_has_no_file_to_run(fake: FakeRuntime) -> None:
    opened = open_session(only("openvino"), "auto", Share(1))
    assert opened.provider == "openvino"
    assert opened.passed_over == ("cuda: cuda does not compute in it",)


def test_a_file_that_no_provider_has_is_a_wrong_setting(fake: FakeRuntime) -> None:
    fake.broken = frozenset({"OpenVINO"})
    with pytest.raises(ConfigError, match=r"cuda does not compute in it; openvino: .* broken; cpu does not compute in"):
        open_session(only("openvino"), "auto", Share(1))
    with pytest.raises(ConfigError, match=r"^cuda does not compute in it$"):
        open_session(only("openvino"), "cuda", Share(1))


def test_bf16_is_never_quietly_something_else(fake: FakeRuntime) -> None:
    for provider in ("cpu", "cuda", "tensorrt"):
        with pytest.raises(ProviderUnavailable, match="bf16"):
            open_session(lambda _: (MODEL, "bf16"), provider, Share(1))  # type: ignore[arg-type]
    assert open_session(lambda _: (MODEL, "bf16"), "openvino", Share(1)).provider == "openvino"


def test_a_wrong_option_is_no_reason_to_take_another_provider(fake: FakeRuntime, tmp_path: Path) -> None:
    fake.broken = frozenset({cuda.NAME})
    (tmp_path / "openvino").write_text("a file where the folder should be")
    with pytest.raises(ConfigError, match="RESNET_CACHE_DIR"):
        open_session(MODEL, "auto", Share(1), ProviderSettings(cache_dir=tmp_path))


@pytest.mark.parametrize("requested", ["cuda", "tensorrt"])
@pytest.mark.parametrize("max_batch", [None, 4])
def test_nothing_of_nvidia_meets_tf32(fake: FakeRuntime, requested: Provider, max_batch: int | None) -> None:
    """Neither the libraries, which keep what they read first, nor a session, whatever the environment said."""
    open_session(MODEL, requested, Share(2, max_batch=max_batch))
    assert len(fake.tf32) >= 2
    assert set(fake.tf32) == {"0"}


@pytest.mark.parametrize("requested", ["openvino", "cpu"])
def test_cpu_providers_leave_the_environment_alone(fake: FakeRuntime, requested: Provider) -> None:
    open_session(MODEL, requested, Share(2))
    assert fake.tf32 == ["1"]


@pytest.mark.parametrize("requested", get_args(Provider))
def test_no_session_spins(fake: FakeRuntime, requested: Provider) -> None:
    open_session(MODEL, requested, Share(4, max_batch=4))
    assert fake.sessions
    for session in fake.sessions:
        assert session.options.intra_op_num_threads == 1
        assert session.options.entries["session.intra_op.allow_spinning"] == "0"


# The real ones


def test_auto_finds_something_here(tiny_stored: StoredModel) -> None:
    opened = open_session(tiny_stored.folder / "fp32.onnx", "auto", Share(1))
    assert opened.provider in AUTO_ORDER
    assert len(opened.passed_over) == AUTO_ORDER.index(opened.provider)


def why_not(requested: Provider) -> str | None:
    try:
        candidates(requested)
    except ProviderUnavailable as reason:
        return str(reason)
    return None


@pytest.mark.parametrize("requested", ["cuda", "tensorrt"])
def test_a_gpu_provider_here_is_had_or_refused_with_a_reason(tiny_stored: StoredModel, requested: Provider) -> None:
    """On a machine without a GPU, the real fall-back; on one with, the real thing."""
    reason = why_not(requested)
    if reason is None and requested == "tensorrt":
        reason = "tensorrt: "  # its libraries are missing, which only opening a model shows
        with suppress(ProviderUnavailable):
            assert open_session(tiny_stored.folder / "fp32.onnx", requested, Share(1)).provider == requested
            return
    if reason:
        with pytest.raises(ProviderUnavailable, match=re.escape(reason)):
            open_session(tiny_stored.folder / "fp32.onnx", requested, Share(1))
    else:
        assert open_session(tiny_stored.folder / "fp32.onnx", requested, Share(1)).provider == requested


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "junk.onnx"
    path.write_bytes(b"junk")
    with pytest.raises(ProviderUnavailable, match="cpu: "):
        open_session(path, "cpu", Share(1))


def test_the_service_needs_no_gpu_package(fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert candidates("auto")[0] == ["openvino", "cpu"]
    with pytest.raises(ProviderUnavailable, match="nvidia-ml-py"):
        candidates("cuda")
