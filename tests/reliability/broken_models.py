"""A broken model never serves: versions broken in every way are put into the store of a service under load.

    python -m tests.reliability.broken_models

Each stays out of service, with the reason in the log and in ``/v1/models``, while the version before answers every
image rightly and the service stays ready.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import onnx

from benchmarks.report import Report, Target
from benchmarks.server import Server
from model_store.manifest import MANIFEST_FILE
from model_store.store import EMBEDDED_MODELS, ModelStore
from model_store.verified import describe_file
from tests.end_to_end.conftest import until
from tests.reliability.clients import SETTINGS, Together, images
from tests.reliability.harness import describe, figures, none_of, program, serving

MODEL: Final = "model.fp32.onnx"


def rewrite(folder: Path, **changes: Any) -> None:
    """Make the manifest say what the files are now, so that their hashes are right."""
    path = folder / MANIFEST_FILE
    manifest = json.loads(path.read_text())
    for part in [manifest["labels"], *manifest["variants"]]:
        if (folder / part["file"]).is_file():
            part |= describe_file(folder / part["file"]).model_dump()
    path.write_text(json.dumps(manifest | changes))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_shape(folder: Path) -> None:
    graph = onnx.load(folder / MODEL)
    graph.graph.input[0].type.tensor_type.shape.dim[1].dim_value += 1
    onnx.save(graph, folder / MODEL)
    rewrite(folder)


def external_data(folder: Path) -> None:
    graph = onnx.load(folder / MODEL)
    onnx.save(graph, folder / MODEL, save_as_external_data=True, location="weights.bin", size_threshold=0)
    rewrite(folder)


def no_graph(folder: Path) -> None:
    (folder / MODEL).write_bytes(b"no graph")
    rewrite(folder)


def symbolic_link(folder: Path) -> None:
    (folder / MODEL).rename(folder / "real.onnx")
    (folder / MODEL).symlink_to("real.onnx")


def flip_hash(path: Path) -> None:
    manifest = json.loads(path.read_text())
    for variant in manifest["variants"]:
        variant["sha256"] = variant["sha256"][::-1]
    path.write_text(json.dumps(manifest))


BROKEN: Final[Mapping[str, Callable[[Path], Any]]] = {
    "truncated": lambda folder: cut(folder / MODEL),
    "a bit flipped": lambda folder: flip(folder / MODEL),
    "another hash in the manifest": lambda folder: flip_hash(folder / MANIFEST_FILE),
    "wrong shape": other_shape,
    "no graph": no_graph,
    "weights in another file": external_data,
    "a hard link": lambda folder: os.link(folder / MODEL, folder / "other.onnx"),
    "a symbolic link": symbolic_link,
    "no file": lambda folder: (folder / MODEL).unlink(),
    "no labels": lambda folder: (folder / "labels.txt").unlink(),
    "a label too few": lambda folder: (
        (folder / "labels.txt").write_text("\n".join((folder / "labels.txt").read_text().split("\n")[:-2]) + "\n"),
        rewrite(folder),
    ),
    "half a manifest": lambda folder: cut(folder / MANIFEST_FILE),
}
"""What is done to a version, by its name in the table."""


def publish(store: Path, version: str, change: Callable[[Path], Any]) -> None:
    """The embedded model under another number, broken by hand; in place in one step."""
    name = ModelStore(EMBEDDED_MODELS).names()[0]
    source = ModelStore(EMBEDDED_MODELS).resolve(name).folder
    with ModelStore(store).staging() as staged:
        folder = shutil.copytree(source, staged / version)
        rewrite(folder, version=version)
        change(folder)
        (store / name).mkdir(exist_ok=True)
        folder.replace(store / name / version)


def failed(server: Server) -> dict[str, str]:
    """Reasons by version, as ``/v1/models`` has them."""
    answer = httpx.get(f"{server.url}/v1/models", timeout=30).raise_for_status()
    return {one["version"]: one["reason"] for one in answer.json()["failed"]}


def reason(server: Server, version: str) -> str:
    """Why ``version`` is not served; empty where none is told."""
    try:
        return until(lambda: failed(server).get(version, ""), "a reason", limit_s=60, pause_s=0.1)
    except AssertionError:
        return ""


def messages(server: Server) -> str:
    """What the service has logged."""
    lines = [line for line in server.log.splitlines() if line.startswith("{")]
    return "\n".join(json.loads(line)["message"] for line in lines)


@dataclass
class Tried:
    """The reason of each kind that was refused with one, the clients beside, and what was served at the end."""

    refused: dict[str, str]
    beside: Together
    served: list[str]


async def try_all(server: Server, store: Path) -> Tried:
    images()
    beside, told = Together(server, clients=2), {}
    for number, (what, change) in enumerate(BROKEN.items(), start=2):
        version = str(number)
        await asyncio.to_thread(publish, store, version, change)
        found = await asyncio.to_thread(reason, server, version)
        if found and f"version {version} cannot be loaded: {found}" in messages(server) and server.readiness == 200:
            told[what] = found
        await beside.answered(more=10)
    await beside.stop()
    return Tried(told, beside, [model["version"] for model in server.models()])


def measure(report: Report, settings: dict[str, str]) -> Tried:
    """Every kind, in a store of its own."""
    with tempfile.TemporaryDirectory() as folder:
        publish(Path(folder), "1", lambda folder: None)
        own = {**SETTINGS, "RESNET_WATCH_S": "0.2", **settings, "RESNET_MODEL_STORE": folder}
        with serving(**own) as server:
            describe(report, server)
            return asyncio.run(try_all(server, Path(folder)))


def fill(report: Report, tried: Tried) -> None:
    """The figures and the promises."""
    reasons = {what: tried.refused.get(what, "NOT REFUSED") for what in BROKEN}
    figures(report, "Broken versions, and why each is not served", reasons)
    report.hold(
        [
            Target("kinds refused with their reason", len(tried.refused), len(BROKEN), at_least=True),
            Target("answered by version 1 meanwhile", tried.beside.tally.answered, 1, at_least=True),
            none_of("wrong answers", tried.beside.tally.wrong),
            none_of("failed", len(tried.beside.failed)),
            none_of("other versions served at the end", float(tried.served != ["1"]), ", ".join(tried.served)),
        ]
    )


@program
def main(settings: dict[str, str]) -> Report:
    report = Report("reliability.broken_models")
    fill(report, measure(report, settings))
    return report


if __name__ == "__main__":
    main()
