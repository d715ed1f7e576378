"""What costly images cost, and what the service makes of them.

    python -m tests.security.costly_images
    python -m tests.security.costly_images --no-server jpeg png_text

For each image made by ``tests.security.costly``: processor seconds and memory that Pillow takes for it where nothing
bounds it (in a process of its own, given up after a minute), where the service decodes it (slot, or a process apart),
and, with a real server, its answer, with the answers of good images in the same request compared to a run without.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import click
import httpx
import psutil

from benchmarks.report import Report
from benchmarks.server import ROOT, Server
from model_store.manifest import Preprocessing
from service.errors import ImageError
from service.images.apart import Apart
from service.images.decode import Costly, Decoder
from service.settings import DecodeSettings, ImageFormat
from tests.end_to_end.conftest import picture
from tests.reliability.harness import describe, none_of, program, serving
from tests.security.costly import MADE

FORMATS: tuple[ImageFormat, ...] = get_args(ImageFormat)
GIVEN_UP_S = 60
COST_LIMIT_S, COST_LIMIT_MIB = 2, 300
"""What a slot's thread may be given at most."""
_COST = "import pathlib, sys, tests.security.costly_images as it; it.cost_here(pathlib.Path(sys.argv[1]))"
SETTINGS = {
    "RESNET_IMAGE_FORMATS": ",".join(FORMATS),
    "RESNET_DEADLINE_S": "120",
    "RESNET_PRECISION": "fp32",
}
SPEC = Preprocessing(height=224, width=224, resize=256, mean=(0, 0, 0), std=(1, 1, 1))


def decoding(**changes: int) -> DecodeSettings:
    return DecodeSettings.model_validate({"image_formats": FORMATS} | changes)


def status(name: str) -> int:
    """Of /proc/self/status, in KiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def cost_here(path: Path) -> None:
    """Prints seconds, mebibytes and outcome of decoding ``path`` without bounds but a minute and 8 GiB."""
    decoder = Decoder(decoding(max_jpeg_scans=10**6))
    for kind in FORMATS:  # what is loaded once is not the image's cost
        decoder.tensor(picture(0, form=kind.upper()), SPEC)
    data = path.read_bytes()
    resource.setrlimit(resource.RLIMIT_CPU, (GIVEN_UP_S, GIVEN_UP_S))
    resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before, began_s = status("VmRSS"), time.process_time()
    try:
        decoder.tensor(data, SPEC)
        outcome = "decoded"
    except ImageError as error:
        outcome = error.code
    print(json.dumps([time.process_time() - began_s, (status("VmHWM") - before) / 1024, outcome]))


def cost(path: Path) -> tuple[float, float, str]:
    done = subprocess.run([sys.executable, "-c", _COST, path], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        return float(GIVEN_UP_S), float("nan"), "given up"
    seconds, mebibytes, outcome = json.loads(done.stdout)
    return seconds, mebibytes, outcome


def where(data: bytes) -> str:
    try:
        Decoder(decoding(), cheap_only=True).tensor(data, SPEC)
    except Costly:
        return "apart"
    except ImageError as error:
        return f"slot: {error.code}" if error.code != "image_too_large" else "refused"
    return "slot"


def answers(client: httpx.Client, data: bytes) -> tuple[str, bool]:
    """What the service says of ``data`` between two good images, and whether theirs are as ever."""
    good = [picture(1), picture(2)]
    alone = client.post("/v1/classify", files=[("a", good[0]), ("b", good[1])]).json()["results"]
    answer = client.post("/v1/classify", files=[("a", good[0]), ("x", data), ("b", good[1])])
    if answer.status_code != 200:
        return f"{answer.status_code} {answer.json()['error']['code']}", False
    first, found, last = answer.json()["results"]
    same = all(
        one["predictions"][0]["label"] == other["predictions"][0]["label"]
        and abs(one["predictions"][0]["probability"] - other["predictions"][0]["probability"]) < 1e-4
        for one, other in zip(alone, (first, last), strict=True)
    )
    return found["error"]["code"] if "error" in found else "classified", same


def apart_cost(rounds: int = 200) -> list[str]:
    """What the way to another process and back adds to an image."""
    apart, decoder, data = Apart(decoding(), 1), Decoder(decoding()), picture(0, (500, 375))
    began_s = time.perf_counter()
    apart.tensor(data, SPEC)
    said = [f"the first image apart, which starts the process: {time.perf_counter() - began_s:.2f} s"]
    (child,) = psutil.Process().children()

    def processor_s() -> float:
        return time.process_time() + sum(child.cpu_times()[:2])

    for name, decode in (("in a thread", decoder.tensor), ("apart", apart.tensor)):
        took: list[float] = []
        before_s = processor_s()
        for _ in range(rounds):
            began_s = time.perf_counter()
            decode(data, SPEC)
            took.append(time.perf_counter() - began_s)
        cpu_ms, least_ms = 1000 * (processor_s() - before_s) / rounds, 1000 * min(took)
        said.append(
            f"a 500x375 JPEG {name}: {cpu_ms:.2f} ms of processor time, {least_ms:.2f} ms at least by the clock"
        )
    said.append(f"the process holds {child.memory_info().rss / 2**20:.0f} MiB")
    apart.close()
    return said


@dataclass(frozen=True)
class Cost:
    """One image's: unbounded, and what the service makes of it; without a server, no ``answer``."""

    name: str
    size: int
    seconds: float
    mebibytes: float
    outcome: str
    place: str
    answer: str = ""
    neighbours_same: bool = True

    @property
    def too_much(self) -> bool:
        """For the thread of a slot."""
        return self.place == "slot" and not (self.seconds < COST_LIMIT_S and self.mebibytes < COST_LIMIT_MIB)

    def cells(self) -> list[str]:
        said = self.answer + ("" if self.neighbours_same else ", NEIGHBOURS CHANGED")
        cost = f"{self.seconds:.2f}", f"{self.mebibytes:.0f}"
        return [self.name, str(self.size), *cost, self.outcome, self.place, said + ", TOO MUCH" * self.too_much]


def measure(name: str, path: Path, server: Server | None) -> Cost:
    """Of the image ``name``, which is put at ``path``."""
    data = MADE[name]()
    path.write_bytes(data)
    found = name, len(data), *cost(path), where(data)
    if server is None:
        return Cost(*found)
    with httpx.Client(base_url=server.url, timeout=150) as client:
        return Cost(*found, *answers(client, data))


def fill(report: Report, found: list[Cost]) -> None:
    """The figures and the promises."""
    head = ["image", "bytes", "CPU s", "MiB", "unbounded", "where", "answer"]
    report.table("Costly images", head, [one.cells() for one in found])
    report.hold(
        [
            none_of(
                f"images over {COST_LIMIT_S} s or {COST_LIMIT_MIB} MiB in a slot", sum(one.too_much for one in found)
            ),
            none_of("images that changed a neighbour's answer", sum(not one.neighbours_same for one in found)),
        ]
    )


@program
@click.argument("names", nargs=-1)
@click.option("--no-server", is_flag=True, help="Measure only.")
def main(settings: dict[str, str], names: tuple[str, ...], no_server: bool) -> Report:
    report = Report("security.costly_images")
    chosen = [name for name in MADE if not names or name.startswith(names)]
    if not chosen:
        raise click.BadParameter(f"no image's name begins so; there are {', '.join(MADE)}")
    report.notes += apart_cost()
    with (
        nullcontext() if no_server else serving(**{**SETTINGS, **settings}) as server,
        tempfile.TemporaryDirectory() as folder,
        click.progressbar(chosen, file=sys.stderr) as bar,
    ):
        if server is not None:
            describe(report, server)
        fill(report, [measure(name, Path(folder) / "image", server) for name in bar])
    return report


if __name__ == "__main__":
    main()
