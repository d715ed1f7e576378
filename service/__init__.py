"""The running service: images in over HTTP, predictions out. Never imports torch."""

import os

# ONNX Runtime reports its use unless it is told not to before it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.1.0"
"""Of the whole product; pyproject.toml, the APIs and the bill of materials take it from here."""
