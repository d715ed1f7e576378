"""Whether OpenVINO can run here: its plugin is installed, and this CPU one of those it takes."""

from __future__ import annotations

import pytest

from model_store.cpu_features import cpu_features
from model_store.openvino_plugin import PluginUnavailable, cpu_device


def openvino_runs() -> bool:
    """Whether the plugin takes this CPU; a plugin that is missing or broken is an error."""
    try:
        cpu_device()
    except PluginUnavailable as error:
        if "no CPU device" not in str(error):
            raise
        return False
    return True


def need_openvino() -> None:
    """Skips the test, and says why, where the plugin is not installed or this CPU is not Intel's."""
    pytest.importorskip("onnxruntime_ep_openvino")
    if not openvino_runs():
        pytest.skip("this machine cannot run OpenVINO: the plugin does not take its CPU")


def need_bf16() -> None:
    """Skips the test where OpenVINO cannot run, or could not compute in bf16."""
    need_openvino()
    if not cpu_features().bf16:
        pytest.skip("this CPU has no bf16")
