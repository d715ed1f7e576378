"""Makes the model archive and starts TorchServe with it, in the place of this process.

https://docs.pytorch.org/serve/batch_inference_with_ts.html: ``image_classifier`` takes batches.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

PROGRAMS = Path(sys.executable).parent


def main(port: int) -> None:
    labels = (Path(os.environ["PEER_MODEL"]) / "labels.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    folder = Path(os.environ["PEER_SCRATCH"])
    (folder / "index_to_name.json").write_text(json.dumps({str(i): label for i, label in enumerate(labels)}))
    archive = [
        str(PROGRAMS / "torch-model-archiver"), "--model-name", "resnet50", "--version", "1.0",
        "--model-file", str(Path(__file__).with_name("model.py")), "--serialized-file", os.environ["PEER_CHECKPOINT"],
        "--handler", "image_classifier", "--extra-files", str(folder / "index_to_name.json"),
        "--export-path", str(folder),
    ]  # fmt: skip
    subprocess.run(archive, check=True)
    model = {"defaultVersion": True, "marName": "resnet50.mar", "minWorkers": os.cpu_count(),
             "maxWorkers": os.cpu_count(), "batchSize": 8, "maxBatchDelay": 10, "responseTimeout": 120}  # fmt: skip
    config = folder / "config.properties"
    config.write_text(
        f"inference_address=http://127.0.0.1:{port}\nmanagement_address=http://127.0.0.1:{port + 1}\n"
        f"metrics_address=http://127.0.0.1:{port + 2}\nload_models=resnet50.mar\n"
        f"models={json.dumps({'resnet50': {'1.0': model}})}\n"
    )
    os.chdir(folder)
    os.environ["PATH"] = f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"
    program = str(PROGRAMS / "torchserve")
    os.execv(program, [  # noqa: S606
        program, "--start", "--foreground", "--model-store", str(folder), "--ts-config", str(config),
        "--disable-token-auth", "--no-config-snapshots",
    ])  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]))
