"""A broken model never serves: versions broken in every way are put into the store of a service under load.

    python -m tests.reliability.broken_models

Each stays out of service, with the reason in the log and in ``/v1/models``, while the version before answers every
image rightly and the service stays ready. Exit status 1 where one of them did not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import onnx

from model_store.manifest import MANIFEST_FILE
from model_store.store import EMBEDDED_MODELS, ModelStore
from model_store.verified import describe_file
from tests.end_to_end.conftest import until
from tests.reliability.dead_worker import Load
from tests.reliability.instances import Instance, images, instances, table

MODEL: Final = "model.fp32.onnx"


def describe(folder: Path, **changes: Any) -> None:
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
    describe(folder)


def external_data(folder: Path) -> None:
    graph = onnx.load(folder / MODEL)
    onnx.save(graph, folder / MODEL, save_as_external_data=True, location="weights.bin", size_threshold=0)
    describe(folder)


def no_graph(folder: Path) -> None:
    (folder / MODEL).write_bytes(b"no graph")
    describe(folder)


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
        describe(folder),
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
        describe(folder, version=version)
        change(folder)
        (store / name).mkdir(exist_ok=True)
        folder.replace(store / name / version)


def failed(instance: Instance) -> dict[str, str]:
    """Reasons by version, as ``/v1/models`` has them."""
    return {
        one["version"]: one["reason"] for one in httpx.get(f"{instance.url}/v1/models", timeout=30).json()["failed"]
    }


def messages(instance: Instance) -> str:
    """What the service has logged."""
    lines = [line for line in instance.log.splitlines() if line.startswith("{")]
    return "\n".join(json.loads(line)["message"] for line in lines)


async def try_all(instance: Instance, store: Path) -> tuple[dict[str, str], Load]:
    images()
    load, told = Load(instance.port, clients=2), {}
    for number, (what, change) in enumerate(BROKEN.items(), start=2):
        version = str(number)
        await asyncio.to_thread(publish, store, version, change)
        found = await asyncio.to_thread(
            until, lambda version=version: failed(instance).get(version), f"{what}'s reason"
        )
        if f"version {version} cannot be loaded: {found}" in messages(instance) and instance.readiness == 200:
            told[what] = found
        await load.answered(more=10)
    await load.stop()
    return told, load


def run() -> bool:
    """Whether the promise held; what it came to is printed."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        publish(store, "1", lambda folder: None)
        settings = {"RESNET_WORKERS": "1", "RESNET_MODEL_STORE": folder, "RESNET_WATCH_S": "0.2"}
        with instances(1, **settings) as (instance,):
            told, load = asyncio.run(try_all(instance, store))
            served = [one["version"] for one in httpx.get(f"{instance.url}/v1/models", timeout=30).json()["models"]]
    table("Broken versions, and why each is not served", {what: told.get(what, "NOT REFUSED") for what in BROKEN})
    table(
        "Meanwhile",
        {
            "answered by version 1": load.tally.answered,
            "wrong": load.tally.wrong,
            "failed": len(load.failed),
            "served at the end": ", ".join(served),
        },
    )
    return len(told) == len(BROKEN) and served == ["1"] and not load.tally.wrong and not load.failed


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    return 0 if run() else 1


if __name__ == "__main__":
    sys.exit(main())
