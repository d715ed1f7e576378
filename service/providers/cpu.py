"""ONNX Runtime's own CPU kernels: everywhere, and what ``auto`` falls back to in the end.

One session serves all slots: ``run`` computes in the thread that calls it, so with one thread a batch the slots are
the callers', and with more ONNX Runtime adds a pool.
Threads: https://onnxruntime.ai/docs/performance/tune-performance/threading.html
"""

from __future__ import annotations

from typing import Any

from model_store.onnx_session import open_onnx
from service.providers.base import Arithmetic, ExecutionProvider, Model, Share, refuse_bf16, session_options
from service.settings import ProviderSettings


def _open(model: Model, share: Share, precision: Arithmetic, options: ProviderSettings) -> Any:
    del options
    refuse_bf16(precision)
    return open_onnx(model, session_options(share.threads("cpu")), ["CPUExecutionProvider"])


CPU = ExecutionProvider("cpu", lambda: None, _open)
