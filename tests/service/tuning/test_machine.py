from __future__ import annotations

import platform
import sys
import tomllib
from pathlib import Path

import onnxruntime
import pytest

from model_store.stored_model import StoredModel
from service.config import Settings
from service.tuning.machine import cpu_name, key_here

PROJECT = Path(__file__).parents[3] / "pyproject.toml"


def test_the_key_of_this_machine(tiny_stored: StoredModel) -> None:
    key = key_here(tiny_stored, 3, Settings())
    assert (key.cores, key.model, key.version) == (3, "tiny", "1")
    assert key.onnxruntime == onnxruntime.__version__
    assert key.sha256 == {"fp32": tiny_stored.variant("fp32").sha256}
    assert key.cpu
    assert key == key_here(tiny_stored, 3, Settings())
    assert key != key_here(tiny_stored, 4, Settings())


def test_the_version_is_the_projects() -> None:
    assert tomllib.loads(PROJECT.read_text())["tool"]["setuptools"]["dynamic"]["version"] == {
        "attr": "service.__version__"
    }


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (
            "processor\t: 0\nmodel name\t: Made Up  CPU @ 1 GHz\n\nmodel name: Another\n",
            "Made Up CPU @ 1 GHz",
        ),
        ("CPU implementer\t: 0x41\nCPU part\t: 0xd0c\n", "0x41 0xd0c"),
        ("model name\t: \x1b[31mred\n", "[31mred"),
        ("nothing of it", platform.machine()),
        ("", platform.machine()),
    ],
)
def test_the_processors_name(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert cpu_name(tmp_path / "cpuinfo") == name


def test_a_processor_that_nothing_tells_of(tmp_path: Path) -> None:
    assert cpu_name(tmp_path / "cpuinfo") == platform.machine()


class FakeGpu:
    """nvidia-ml-py, as far as it is asked here."""

    class NVMLError(Exception):
        pass

    def __init__(self, *names: str, there: bool = True) -> None:
        self._names = names
        self._there = there

    def nvmlInit(self) -> None:  # noqa: N802
        if not self._there:
            raise self.NVMLError("no driver")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self._names)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        return self._names[handle]

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "1.2"


ALIKE = FakeGpu("Big", "Big")
MIXED = FakeGpu("Small", "Big")


@pytest.mark.parametrize(
    ("gpus", "device", "cuda", "told"),
    [
        (FakeGpu("Big"), 0, {}, "Big, driver 1.2"),
        (FakeGpu("Big"), 1, {}, None),
        (FakeGpu(), 0, {}, None),
        (FakeGpu("Big", there=False), 0, {}, None),
        (ALIKE, 1, {}, "Big, driver 1.2"),
        (ALIKE, 0, {"CUDA_VISIBLE_DEVICES": "1"}, "Big, driver 1.2"),
        (ALIKE, 0, {"CUDA_VISIBLE_DEVICES": "GPU-12ab"}, "Big, driver 1.2"),
        (ALIKE, 0, {"CUDA_VISIBLE_DEVICES": "MIG-12ab"}, "MIG-12ab (FASTEST_FIRST) of Big, driver 1.2"),
        (ALIKE, 1, {"CUDA_VISIBLE_DEVICES": "1"}, None),
        (ALIKE, 0, {"CUDA_VISIBLE_DEVICES": ""}, None),
        (ALIKE, 0, {"CUDA_VISIBLE_DEVICES": "-1"}, None),
        (MIXED, 0, {}, "0 (FASTEST_FIRST) of Big and Small, driver 1.2"),
        (MIXED, 0, {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, "0 (PCI_BUS_ID) of Big and Small, driver 1.2"),
        (MIXED, 1, {"CUDA_VISIBLE_DEVICES": "1, 0"}, "0 (FASTEST_FIRST) of Big and Small, driver 1.2"),
    ],
)
def test_the_gpu(
    tiny_stored: StoredModel,
    monkeypatch: pytest.MonkeyPatch,
    gpus: FakeGpu,
    device: int,
    cuda: dict[str, str],
    told: str | None,
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", gpus)
    for name in ("CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in cuda.items():
        monkeypatch.setenv(name, value)
    assert key_here(tiny_stored, 2, Settings.from_env({"RESNET_GPU_DEVICE": str(device)})).gpu == told
