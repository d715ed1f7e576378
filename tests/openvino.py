"""Whether OpenVINO can run here: its plugin is installed, and this CPU one of those it takes."""

from __future__ import annotations

import pytest

from model_store.openvino_plugin import PluginUnavailable, cpu_device


def need_openvino() -> None:
    """Skips the test, and says why, where the plugin is not installed or this CPU is not Intel's."""
    pytest.importorskip("onnxruntime_ep_openvino")
    try:
        cpu_device()
    except PluginUnavailable as error:
        if "no CPU device" not in str(error):
            raise
        pytest.skip(f"this machine cannot run OpenVINO: {error}")
