"""What `make bench` runs: about five minutes of measurements, and a page of them.

    python -m benchmarks.suite --out build/bench --store models --model mine --precision int8

The embedded model end to end, and its stages; the same of another model where --store names one; where a photo's
decoding time goes, where there are photos.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.images import PHOTOS
from benchmarks.page import write_index


def commands(options: argparse.Namespace) -> dict[str, list[str]]:
    """The programs to run with their arguments, by the name of their result."""
    length = ["--smoke"] if options.smoke else ["--seconds", "2", "--rounds", "2"]
    images = [] if options.images is None else ["--images", str(options.images)]
    found = {
        "embedded": ["end_to_end", *length, *images],
        "stages-embedded": ["stages", *length, *images],
    }
    if options.store is not None:
        model = ["--store", str(options.store), *images]
        for name in ("model", "precision", "provider"):
            if (value := getattr(options, name)) is not None:
                model += [f"--{name}", value]
        title = options.model or options.store.name
        found[f"{title}"] = ["end_to_end", "--parts", "load,cores,start", *length, *model]
        found[f"stages-{title}"] = ["stages", *length, *model]
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.suite", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="folder of the page (%(default)s)")
    parser.add_argument("--store", type=Path, help="measure a model of this store, too")
    for name in ("model", "precision", "provider"):
        parser.add_argument(f"--{name}", help=f"its {name}")
    parser.add_argument("--images", type=Path, help="folder or zip of images; by default photos or made ones")
    parser.add_argument("--smoke", action="store_true", help="all of it seconds short, to see that it runs")
    options = parser.parse_args(arguments)
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    for name, (program, *rest) in commands(options).items():
        print(f"\n== {name}", flush=True)
        _run([program, *rest, "--json", str(options.out / f"{name.replace('@', '-')}.json")])
    if importlib.util.find_spec("benchmarks.decode") is not None and PHOTOS.exists():
        print("\n== decode", flush=True)
        short = ["--rounds", "1", "--seconds", "0.2"] if options.smoke else ["--rounds", "5", "--seconds", "1"]
        printed = _run(["decode", *short], capture=True)
        print(printed)
        (options.out / "decode.txt").write_text(printed)
    print(f"\nThe page: {write_index(options.out)}")


def _run(command: list[str], *, capture: bool = False) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{command[0]}", *command[1:]],
        stdout=subprocess.PIPE if capture else None,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"benchmarks.{command[0]} failed with status {done.returncode}")
    return done.stdout or ""


if __name__ == "__main__":
    main()
