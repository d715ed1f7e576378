"""A session of ONNX Runtime, opened as asked or not at all, for serving and for the exporter's checks alike.

onnxruntime is imported when it is asked for: who only reads the store needs none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def open_onnx(model: Path | bytes, options: Any, providers: Sequence[Any] | None = None) -> Any:
    """An ``InferenceSession`` for a file or its content; raises what ONNX Runtime does, which has no common base.

    It would open the model again on other providers, or go on there after a failed run, and only print it. For that it
    keeps the content, as large as the model, for as long as the session lives; nothing else needs it.
    """
    import onnxruntime as ort

    session = ort.InferenceSession(model, options, providers=providers, enable_fallback=0)
    session._model_bytes = None
    return session
