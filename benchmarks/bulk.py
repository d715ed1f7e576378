"""Bulk scoring beside the bound: decode and inference in one process, from memory to nowhere.

    python -m benchmarks.bulk --precision int8 [--ray]

Each round scores as many images as the bound does in its seconds: once with the local engine, from files to Parquet,
and with ``--ray`` once more on a Ray that is started for it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from benchmarks.bound import Bound
from benchmarks.images import load_images
from benchmarks.report import Report, Target, common_options, median, ratios, shorten, spread
from benchmarks.subject import add_model_options, settings_of

_BATCH = 8
_PART = 500


@dataclass(frozen=True)
class BulkRun:
    """Images a second while there are images to score, and the seconds of the whole command."""

    per_second: float
    seconds: float


def score(listed: Path, output: Path, settings: Mapping[str, str], *options: str) -> BulkRun:
    """One run of the command over the images of a list."""
    model = ["--model", settings["RESNET_MODELS"]] if "RESNET_MODELS" in settings else []
    command = [
        sys.executable,
        "-m",
        "service",
        "bulk",
        str(listed),
        "--output",
        str(output),
        "--json",
        *model,
        *options,
    ]
    began = perf_counter()
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr)
    return BulkRun(float(json.loads(done.stdout)["images_per_second"]), perf_counter() - began)


def main() -> None:
    parser = common_options("bulk", __doc__)
    add_model_options(parser)
    parser.add_argument("--ray", action="store_true", help="also on Ray, started on this machine")
    options = shorten(parser.parse_args())
    images, settings = load_images(options.images), settings_of(options)
    engines = ["local", "ray"] if options.ray else ["local"]
    bounds: list[float] = []
    runs: dict[str, list[BulkRun]] = {engine: [] for engine in engines}
    with tempfile.TemporaryDirectory() as scratch, Bound(settings, images.bodies) as bound:
        folder = Path(scratch)
        for number, body in enumerate(images.bodies):
            (folder / f"{number}.jpg").write_bytes(body)
        listed = folder / "images.txt"
        for turn in range(options.rounds):
            bounds.append(bound.run(_BATCH, options.seconds).per_second)
            count = max(_BATCH, int(bounds[-1] * options.seconds))
            listed.write_text("".join(f"{n % len(images.bodies)}.jpg\n" for n in range(count)), encoding="utf-8")
            for engine, found in runs.items():
                part = ("--engine", engine, "--part-images", str(_PART))
                found.append(score(listed, folder / f"{engine}{turn}.parquet", settings, *part))
    report = Report("bulk", options.smoke, subject={"images": images.origin})
    report.table(
        "Images a second",
        ["what", "images/s", "of the bound", "whole command, s"],
        [
            [f"bound, batches of {_BATCH}", spread(bounds), "1", "-"],
            *(
                [engine, spread(rates), spread(ratios(rates, bounds)), spread([run.seconds for run in found])]
                for engine, found in runs.items()
                for rates in [[run.per_second for run in found]]
            ),
        ],
    )
    local = ratios([run.per_second for run in runs["local"]], bounds)
    report.hold([Target("the local engine over the bound", median(local), 0.95, at_least=True)])
    report.finish(options.json)


if __name__ == "__main__":
    main()
