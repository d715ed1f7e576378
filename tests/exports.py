"""`python -m export` as a process of its own that need not import PyTorch again: forked from one that has.

Its exporter takes six seconds of CPU to import, most of an export of a small network, and tests run it many times.
How the program begins, in a Python of its own, is seen by tests/export/test_main.py and by those of the README.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]

_IMPORTED: Final = [
    "export.convert",
    "export.checkpoints.origins",
    "onnxruntime",
    "onnxscript.function_libs.torch_lib.ops",
    "onnxscript.optimizer",
    "timm",
    "torch._dynamo.convert_frame",
    "torch.export._trace",
    "torch.onnx._internal.exporter._core",
    "torchvision",
]
_FORKING: Final = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(_IMPORTED)


def export(
    *words: object, folder: Path = ROOT, weights: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python -m export` with ``words`` in ``folder``; in ``weights``, torchvision's URLs by network."""
    command = list(map(str, words))
    with tempfile.TemporaryDirectory(prefix="export-") as printed:
        out, err = Path(printed) / "out", Path(printed) / "err"
        program = _FORKING.Process(
            target=_run, args=(command, folder, dict(os.environ), dict(weights or {}), (out, err))
        )
        program.start()
        program.join()
        assert program.exitcode is not None
        return subprocess.CompletedProcess(command, program.exitcode, out.read_text(), err.read_text())


def exported(*words: object) -> None:
    """The same, where it must do what it is asked."""
    done = export(*words)
    assert done.returncode == 0, done.stderr


def _run(
    words: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    weights: Mapping[str, str],
    printed: tuple[Path, Path],
) -> None:
    for descriptor, path in zip((1, 2), printed, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    if weights:
        from torchvision.models import get_model_weights

        for name, url in weights.items():
            get_model_weights(name).DEFAULT.value.url = url
    sys.argv[1:] = words
    runpy.run_module("export", run_name="__main__", alter_sys=True)
