"""One export from start to end: weights, network, graph, proof, published version.

Everything that can be wrong is looked at before the slow part starts
(``export.jobs``), and the store sees a whole version or nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console

from export.graphs.contract import Graph
from export.graphs.foreign_file import OnnxFile
from export.graphs.imported import file_reference, wrap
from export.graphs.serving_graph import export_graph
from export.images.image_sets import Pixels
from export.jobs import Job, Request, prepare
from export.parity import ParityError, Reference, Verdict, measure, onnx_runner
from export.reports.model_card import CARD_FILE, render_card
from export.torch_reference import torch_reference
from model_store.locations import open_store
from model_store.manifest import Architecture, Manifest, Variant
from model_store.store import LABELS_FILE
from model_store.stored_model import StoredModel
from model_store.verified import describe_file

__all__ = ["Request", "convert"]

FP32_FILE: Final = "model.fp32.onnx"


def convert(request: Request, console: Console) -> StoredModel:
    """Export, verify and publish; what is worth knowing on the way goes to ``console``.

    ``ExportError`` or ``StoreError`` where nothing was published.
    """
    store = open_store(request.store, writing=True)
    job = prepare(request, store, console)
    original = "the given file" if isinstance(job.network, OnnxFile) else "PyTorch"
    _say(console, f"exporting {job.arch} with {len(job.labels.names)} classes")
    graph = _graph(job)
    with store.staging(graph.model.ByteSize()) as staged:
        file = staged / FP32_FILE
        graph.save(file)
        _say(console, f"comparing with {original}: {job.images.count} images, {job.images.name}")
        verdict = measure(job.images, _reference(job), onnx_runner(file), job.labels.names, console)
        if verdict.reasons:
            raise ParityError(f"not published, the ONNX file is not {original}'s equal: {'; '.join(verdict.reasons)}")
        (staged / LABELS_FILE).write_text(job.labels.text(), encoding="utf-8", newline="\n")
        manifest = _manifest(request.name, job, graph, verdict, staged)
        card = render_card(manifest, job.labels.names, job.training, request.notes)
        (staged / CARD_FILE).write_text(card, encoding="utf-8", newline="\n")
        return store.publish(staged, manifest)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _graph(job: Job) -> Graph:
    if isinstance(job.network, OnnxFile):
        return wrap(job.network, job.preprocessing, job.maps)
    return export_graph(job.network, job.preprocessing, job.maps)


def _reference(job: Job) -> Callable[[Pixels], Reference]:
    """What the exported file is compared with: PyTorch, or the ONNX file that was given."""
    if isinstance(job.network, OnnxFile):
        return file_reference(job.network, job.preprocessing)
    return torch_reference(job.network, job.preprocessing)


def _manifest(name: str, job: Job, graph: Graph, verdict: Verdict, staged: Path) -> Manifest:
    file = describe_file(staged / FP32_FILE)
    return Manifest(
        name=name,
        version=job.version,
        created=datetime.now(UTC).replace(microsecond=0),
        architecture=Architecture(name=job.arch, spec=dict(job.spec), parameters=job.parameters),
        source=job.source,
        preprocessing=job.preprocessing,
        labels=describe_file(staged / LABELS_FILE),
        outputs=graph.outputs,
        opset=graph.opset,
        variants=[Variant(**file.model_dump(), precision="fp32", parity=verdict.parity)],
    )
