"""The OpenVINO plugin of ONNX Runtime: registered once a process, for serving and for the exporter's gate alike.

onnxruntime is imported when it is asked for: who only reads the store needs none.

Document: https://onnxruntime.ai/docs/execution-providers/plugin-ep-libraries/usage.html
"""

from __future__ import annotations

import threading
from typing import Any

_REGISTERING = threading.Lock()


class PluginUnavailable(Exception):
    """The plugin cannot be had here; the message says why in one line."""


def cpu_device() -> Any:
    """The plugin's CPU, an ``OrtEpDevice`` for ``SessionOptions.add_provider_for_devices``, or ``PluginUnavailable``.

    The first call loads the library. ONNX Runtime keeps it and refuses it twice, so later calls find it there. One
    that offers no device, as on an AMD CPU, is given back: each call then says the same.
    """
    try:
        import onnxruntime as ort
        import onnxruntime_ep_openvino as plugin
    except ModuleNotFoundError as error:
        raise PluginUnavailable(f"{(error.name or 'onnxruntime').replace('_', '-')} is not installed") from error
    except ImportError as error:  # there, and broken
        raise PluginUnavailable(f"the plugin cannot be loaded: {error}") from error
    name = plugin.get_ep_name()
    with _REGISTERING:
        devices = [device for device in ort.get_ep_devices() if device.ep_name == name]
        if not devices:
            try:
                ort.register_execution_provider_library(name, plugin.get_library_path())
            except Exception as error:  # ONNX Runtime raises classes of its own, without a common base
                raise PluginUnavailable(f"the plugin cannot be loaded: {' '.join(str(error).split())}") from error
            devices = [device for device in ort.get_ep_devices() if device.ep_name == name]
            if not devices:
                ort.unregister_execution_provider_library(name)
    for device in devices:
        if device.device.type == ort.OrtHardwareDeviceType.CPU:
            return device
    raise PluginUnavailable("the plugin offers no CPU device (Intel's are what it is made for)")
