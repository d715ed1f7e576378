"""What costly images cost, and what the service makes of them: `python -m tests.security.costly_images`.

For each image made by ``tests.security.costly``: processor seconds and memory that Pillow takes for it where nothing
bounds it (in a process of its own, given up after a minute), where the service decodes it (slot, or a process apart),
and, with a real server, its answer, with the answers of good images in the same request compared to a run without.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

import httpx
import psutil

from model_store.manifest import Preprocessing
from service.apart import Apart
from service.decode import Costly, Decoder
from service.errors import ImageError
from service.settings import DecodeSettings, ImageFormat
from tests.end_to_end.conftest import picture, running
from tests.security.costly import MADE

FORMATS: tuple[ImageFormat, ...] = get_args(ImageFormat)
GIVEN_UP_S = 60
SPEC = Preprocessing(height=224, width=224, resize=256, mean=(0, 0, 0), std=(1, 1, 1))


def settings(**changes: int) -> DecodeSettings:
    return DecodeSettings.model_validate({"image_formats": FORMATS} | changes)


def status(name: str) -> int:
    """Of /proc/self/status, in KiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def cost_here(path: Path) -> None:
    """Prints seconds, mebibytes and outcome of decoding ``path`` without bounds but a minute and 8 GiB."""
    decoder = Decoder(settings(max_jpeg_scans=10**6))
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
    command = [sys.executable, "-m", "tests.security.costly_images", "--cost-of", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return float(GIVEN_UP_S), float("nan"), "given up"
    seconds, mebibytes, outcome = json.loads(done.stdout)
    return seconds, mebibytes, outcome


def where(data: bytes) -> str:
    try:
        Decoder(settings(), cheap_only=True).tensor(data, SPEC)
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


def apart_cost(rounds: int = 200) -> None:
    """What the way to another process and back adds to an image."""
    apart, decoder, data = Apart(settings(), 1), Decoder(settings()), picture(0, (500, 375))
    began_s = time.perf_counter()
    apart.tensor(data, SPEC)
    print(f"the first image apart, which starts the process: {time.perf_counter() - began_s:.2f} s")
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
        print(f"a 500x375 JPEG {name}: {cpu_ms:.2f} ms of processor time, {least_ms:.2f} ms at least by the clock")
    print(f"the process holds {child.memory_info().rss / 2**20:.0f} MiB")
    apart.close()


def report(names: list[str], serve: bool) -> bool:
    """Print a line for each; whether all was as promised."""
    fine = True
    print(f"{'image':<36}{'bytes':>10}{'CPU s':>8}{'MiB':>6}  {'unbounded':<16}{'where':<18}answer")
    with ExitStack() as closing:
        path = Path(closing.enter_context(tempfile.TemporaryDirectory())) / "image"
        client = None
        if serve:
            server = closing.enter_context(
                running(RESNET_IMAGE_FORMATS=",".join(FORMATS), RESNET_DEADLINE_S="120", RESNET_PRECISION="fp32")
            )
            client = closing.enter_context(httpx.Client(base_url=server.url, timeout=150))
        for name in names:
            data = MADE[name]()
            path.write_bytes(data)
            seconds, mebibytes, outcome = cost(path)
            place, answer, same = where(data), "", True
            if client is not None:
                answer, same = answers(client, data)
            too_much = place == "slot" and not (seconds < 2 and mebibytes < 300)
            fine &= same and not too_much
            said = answer + ("" if same else ", NEIGHBOURS CHANGED") + (", TOO MUCH FOR A SLOT" if too_much else "")
            print(
                f"{name:<36}{len(data):>10}{seconds:>8.2f}{mebibytes:>6.0f}  {outcome:<16}{place:<18}{said}", flush=True
            )
    return fine


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="images, or how their names begin; all by default")
    parser.add_argument("--no-server", action="store_true", help="measure only")
    parser.add_argument("--cost-of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cost_of is not None:
        cost_here(options.cost_of)
        return
    names = [name for name in MADE if not options.names or name.startswith(tuple(options.names))]
    apart_cost()
    sys.exit(not report(names, not options.no_server))


if __name__ == "__main__":
    main()
