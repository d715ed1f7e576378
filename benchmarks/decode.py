"""Where a photo's time goes between its bytes and the network's input, and what else could be had.

Processor time of one thread, every measurement once in each round in turn, so that all see the same machine; medians of
the rounds with their spread. Decoders other than Pillow are measured where they are installed (in an environment of
their own: simplejpeg, opencv-python-headless, pyvips with pyvips-binary, cykooz-resizer), with their pixels against
Pillow's. Threads against processes tell what the GIL costs. The large JPEG is made: a photo enlarged, with noise.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import multiprocessing
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.decoders import PACKAGES, cykooz_resize, other_decoders  # noqa: E402
from benchmarks.jpegs import large_jpeg, on_its_side, photos  # noqa: E402
from model_store.manifest import JpegScaling, Preprocessing  # noqa: E402
from model_store.transforms import View, crop_box, load_view, to_rgb, to_tensor, view_tensor  # noqa: E402
from service.images.decode import Decoder  # noqa: E402
from service.settings import DecodeSettings  # noqa: E402

PHOTOS = ROOT.parent / "shared" / "data" / "photos.zip"
WHOLE = (0.0, 0.0, 224.0, 224.0)
Step = Callable[[Any], Any]


def resnet50(resize: int, margin: float | None = None) -> Preprocessing:
    """ImageNet's preprocessing; with a ``margin`` large JPEGs are decoded smaller, which no gate has judged here."""
    spec = Preprocessing(height=224, width=224, resize=resize, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    if margin is None:
        return spec
    return spec.model_copy(update={"jpeg_scaling": JpegScaling.model_construct(margin=margin)})  # type: ignore[call-arg]


def interleaved(steps: dict[str, Step], inputs: list[Any], rounds: int) -> dict[str, list[float]]:
    """Milliseconds an input for every step, one figure a round; the steps take turns at every input."""
    for step in steps.values():
        step(inputs[0])
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        spent = dict.fromkeys(steps, 0.0)
        for value in inputs:
            for name, step in steps.items():
                began = time.process_time()
                step(value)
                spent[name] += time.process_time() - began
        for name, seconds in spent.items():
            found[name].append(1000 * seconds / len(inputs))
    return found


def show(title: str, found: dict[str, list[float]], base: str) -> None:
    """A table: median, spread, and the ratio to ``base``, taken round by round."""
    print(f"\n{title}\n{'':<34}{'median ms':>10}{'min':>9}{'max':>9}{'ratio':>8}")
    for name, values in found.items():
        ratio = statistics.median(a / b for a, b in zip(values, found[base], strict=True))
        print(f"{name:<34}{statistics.median(values):>10.3f}{min(values):>9.3f}{max(values):>9.3f}{ratio:>8.3f}")


def where_time_goes(bodies: list[bytes], rounds: int) -> None:
    """Each part on its own, on what the part before it gives."""
    spec = resnet50(256)
    out = np.empty((8, 224, 224, 3), np.uint8)[3]
    decoder = Decoder(DecodeSettings())

    def opened(data: bytes) -> Image.Image:
        return Image.open(io.BytesIO(data), formats=("JPEG", "MPO"))

    def loaded(data: bytes) -> Image.Image:
        with opened(data) as image:
            image.load()
            return image

    def turned_first(data: bytes) -> None:
        to_tensor(decoder.decode(data), spec, out)

    images = [to_rgb(loaded(data)) for data in bodies]
    small = [image.resize((224, 224), Image.Resampling.BILINEAR, box=crop_box(*image.size, spec)) for image in images]
    found = interleaved(
        {
            "Decoder.tensor, resize 256": lambda data: decoder.tensor(data, spec, out),
            "Decoder.tensor, resize 232": lambda data: decoder.tensor(data, resnet50(232), out),
            "the clock itself": lambda data: None,
            "open (header, limits)": opened,
            "open and decode": loaded,
            "open, decode, EXIF, to RGB": lambda data: to_rgb(opened(data)),
        },
        bodies,
        rounds,
    )
    found |= interleaved(
        {
            "Decoder.tensor, photo on its side": lambda data: decoder.tensor(data, spec, out),
            "the same, turned before the resize": turned_first,
        },
        [on_its_side(data) for data in bodies],
        rounds,
    )
    found |= interleaved(
        {
            "resize of the crop": lambda image: image.resize(
                (224, 224), Image.Resampling.BILINEAR, box=crop_box(image.width, image.height, spec)
            )
        },
        images,
        rounds,
    )
    found |= interleaved(
        {
            "into the batch's row": lambda image: view_tensor(View(image, WHOLE, None, image.size), spec, out),
            "np.asarray and copy": lambda image: np.copyto(out, np.asarray(image)),
        },
        small,
        rounds,
    )
    show("Where the time goes", found, "Decoder.tensor, resize 256")


def others(bodies: list[bytes], rounds: int) -> None:
    """Whole tensors by other libraries, and how far their pixels are from Pillow's."""
    spec = resnet50(256)
    out = np.empty((224, 224, 3), np.uint8)
    decoders = other_decoders()
    colour = [data for data in bodies if Image.open(io.BytesIO(data)).mode == "RGB"]

    def tensor(decode: Callable[[bytes], Image.Image], data: bytes) -> None:
        to_tensor(decode(data), spec, out)

    steps: dict[str, Step] = {name: partial(tensor, decode) for name, decode in decoders.items()}
    if resize := cykooz_resize(spec):
        steps["Pillow, resized by cykooz-resizer"] = lambda data: view_tensor(
            View(resize(decoders["Pillow"](data)), WHOLE, None, (224, 224)), spec, out
        )
    if len(steps) == 1:
        print("\nOther decoders: none is installed here")
        return
    show(f"Bytes to tensor by other libraries, {len(colour)} RGB photos", interleaved(steps, colour, rounds), "Pillow")
    for name, step in steps.items():
        apart = [np.abs(steps["Pillow"](data).astype(int) - step(data)) for data in colour]
        share = sum(int((a > 0).sum()) for a in apart) / sum(a.size for a in apart)
        print(
            f"{name:<34}at most {max(int(a.max()) for a in apart)} grey levels apart, {share:.2%} of the values differ"
        )


def work(bodies: list[bytes], seconds: float) -> tuple[int, float]:
    """Tensors made by this thread in ``seconds``, and the processor seconds it took."""
    decoder, spec, out = Decoder(DecodeSettings()), resnet50(256), np.empty((224, 224, 3), np.uint8)
    done, began, end = 0, time.thread_time(), time.perf_counter() + seconds
    while time.perf_counter() < end:
        decoder.tensor(bodies[done % len(bodies)], spec, out)
        done += 1
    return done, time.thread_time() - began


def _process(bodies: list[bytes], seconds: float, start: Any, results: Any) -> None:
    work(bodies, 0.2)
    start.wait()
    results.put(work(bodies, seconds))


def in_processes(bodies: list[bytes], count: int, seconds: float) -> list[tuple[int, float]]:
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(count), context.Queue()
    made = [context.Process(target=_process, args=(bodies, seconds, start, results)) for _ in range(count)]
    for process in made:
        process.start()
    found = [results.get() for _ in made]
    for process in made:
        process.join()
    return found


def in_threads(bodies: list[bytes], count: int, seconds: float) -> list[tuple[int, float]]:
    found: list[tuple[int, float]] = []
    made = [threading.Thread(target=lambda: found.append(work(bodies, seconds))) for _ in range(count)]
    for thread in made:
        thread.start()
    for thread in made:
        thread.join()
    return found


def parallel(bodies: list[bytes], rounds: int, seconds: float) -> None:
    """How much faster two threads are than one, and two processes, which share no GIL."""
    ways = {"1 thread": (in_threads, 1), "2 threads": (in_threads, 2), "2 processes": (in_processes, 2)}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    costs: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (run, count) in ways.items():
            found = run(bodies, count, seconds)
            rates[name].append(sum(done for done, _ in found) / seconds)
            costs[name].append(1000 * sum(cpu for _, cpu in found) / sum(done for done, _ in found))
    print(f"\nSide by side\n{'':<34}{'images/s':>10}{'min':>9}{'max':>9}{'ratio':>8}{'CPU ms/image':>14}")
    for name, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(values, rates["1 thread"], strict=True))
        cost = statistics.median(costs[name])
        print(
            f"{name:<34}{statistics.median(values):>10.1f}{min(values):>9.1f}{max(values):>9.1f}{ratio:>8.2f}{cost:>14.3f}"
        )


def large(photo: bytes, rounds: int) -> None:
    """A 12-megapixel JPEG whole, and decoded smaller."""
    data = large_jpeg(photo)
    out = np.empty((224, 224, 3), np.uint8)
    decoder = Decoder(DecodeSettings())
    whole = decoder.tensor(data, resnet50(256)).pixels.astype(int)
    specs = {"whole": resnet50(256)} | {f"margin {margin:g}": resnet50(256, margin) for margin in (4, 2, 1)}
    steps: dict[str, Step] = {name: partial(decoder.tensor, spec=spec, out=out) for name, spec in specs.items()}
    lying = on_its_side(data)
    steps["whole, on its side"] = lambda _: decoder.tensor(lying, specs["whole"], out)
    steps["the same, turned before the resize"] = lambda _: to_tensor(decoder.decode(lying), specs["whole"], out)
    show(f"A made 4000x3000 JPEG of {len(data) / 1e6:.1f} MB to tensor", interleaved(steps, [data], rounds), "whole")
    for name, spec in specs.items():
        with Image.open(io.BytesIO(data)) as image:
            size = load_view(image, spec).image.size
        apart = np.abs(whole - decoder.tensor(data, spec).pixels)
        print(
            f"{name:<34}decoded at {size[0]}x{size[1]}, grey levels apart: mean {apart.mean():.2f}, max {apart.max()}"
        )


def machine() -> str:
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    versions = [f"Pillow {importlib.metadata.version('pillow')}"]
    versions += [f"{name.replace('_', '-')} {features.version(name)}" for name in ("libjpeg_turbo", "webp", "zlib")]
    for package in PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return (
        f"{model}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}; "
        f"Python {platform.python_version()}, NumPy {np.__version__}, {', '.join(versions)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path, default=PHOTOS, help="zip file or folder of JPEGs")
    parser.add_argument("--rounds", type=int, default=9, help="how often each is measured")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each measurement side by side")
    options = parser.parse_args()
    bodies = photos(options.images)
    if not bodies:
        sys.exit(f"{options.images}: holds no JPEGs")
    print(machine())
    print(f"{len(bodies)} JPEGs of {options.images.name}; medians of {options.rounds} rounds, processor time")
    where_time_goes(bodies, options.rounds)
    others(bodies, options.rounds)
    parallel(bodies, max(3, options.rounds // 2), options.seconds)
    large(max(bodies, key=len), options.rounds)


if __name__ == "__main__":
    main()
