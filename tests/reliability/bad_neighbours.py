"""One bad image harms nobody: with one in every batch, its neighbours' answers are bit-equal to a clean run's.

    python -m tests.reliability.bad_neighbours

A batch waits until it is full, and full batches are sent one after the other: seven good images and a bad one. The
clean run is of the seven alone, so that the model computes as many images at once in both, for a provider may give
another last bit in a batch of another size. Whether it does is told beside it, by the same images sent alone.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import click
import httpx

from benchmarks.report import Report, Target
from benchmarks.server import Server, total
from tests.end_to_end.conftest import picture
from tests.reliability.harness import describe, none_of, program, serving

MAX_BATCH: Final = 8
SETTINGS: Final = {
    "RESNET_PRECISION": "fp32",
    "RESNET_PROVIDER": "cpu",
    "RESNET_MAX_BATCH": str(MAX_BATCH),
    "RESNET_MAX_DELAY_S": "1",
    "RESNET_SLOTS": "1",
    "RESNET_DECODE_THREADS": "0",
    "RESNET_SPREAD_LONE_IMAGE": "false",
}

_QUERY: Final = {"include": "predictions,embedding,scores", "top_k": "10"}
_GROUPS: Final = 4
_ALONE: Final = 3  # each of them waits for others in vain


@dataclass
class Compared:
    """Good images' answers with bad ones between them, beside a clean run's.

    differ_alone -- of the first three of the clean run, those that differ from answers to the same images alone.
    """

    answers: int = 0
    failed: int = 0
    differ: int = 0
    differ_alone: int = 0
    bad: Counter[int] = field(default_factory=Counter)
    batches: int = 0
    images: int = 0

    @property
    def batch_images(self) -> float:
        return self.images / max(1, self.batches)


def bad_images() -> list[bytes]:
    """Cut, damaged, empty of pixels, too large, and no image at all."""
    whole, png = picture(1), picture(1, form="PNG")
    damaged = bytearray(picture(2))
    damaged[300:5000:7] = bytes(len(range(300, 5000, 7)))
    huge = png[:16] + (60_000).to_bytes(4, "big") * 2 + png[24:]
    return [whole[: len(whole) // 2], bytes(damaged[:-400]), png[:60], huge, b"no image"]


def measure(server: Server, rounds: int) -> Compared:
    """Full batches, in each of them a bad image; before them the same without."""
    return asyncio.run(_measure(server, rounds))


async def _measure(server: Server, rounds: int) -> Compared:
    found = Compared()
    groups = [[picture(100 * group + seed) for seed in range(MAX_BATCH - 1)] for group in range(_GROUPS)]
    limits = httpx.Limits(max_connections=MAX_BATCH)
    async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client:
        clean = [[_content(answer) for answer in await _together(client, group)] for group in groups]
        alone = [_content(await _ask(client, image)) for image in groups[0][:_ALONE]]
        found.differ_alone = sum(one != other for one, other in zip(clean[0], alone, strict=False))
        before = await asyncio.to_thread(_batches, server)
        every = itertools.cycle(bad_images())
        for number in range(rounds):
            group, expected, at = groups[number % _GROUPS], clean[number % _GROUPS], number % MAX_BATCH
            answers = await _together(client, [*group[:at], next(every), *group[at:]])
            found.bad[answers.pop(at).status_code] += 1
            found.answers += len(answers)
            found.failed += sum(answer.status_code != 200 for answer in answers)
            found.differ += sum(_content(answer) != one for answer, one in zip(answers, expected, strict=True))
        after = await asyncio.to_thread(_batches, server)
    found.batches, found.images = after[0] - before[0], after[1] - before[1]
    return found


async def _together(client: httpx.AsyncClient, images: list[bytes]) -> list[httpx.Response]:
    return await asyncio.gather(*(_ask(client, image) for image in images))


async def _ask(client: httpx.AsyncClient, image: bytes) -> httpx.Response:
    return await client.post("/v1/classify", params=_QUERY, content=image)


def _content(answer: httpx.Response) -> Any:
    """Every number of an answer; equal where all its bits are, as JSON has the shortest digits that tell them apart."""
    return answer.json().get("results", answer.status_code)


def _batches(server: Server) -> tuple[int, int]:
    metrics = server.metrics()
    return round(total(metrics, "resnet_batch_images_count")), round(total(metrics, "resnet_batch_images_sum"))


def fill(report: Report, found: Compared) -> None:
    """The figures and the promises."""
    refused = ", ".join(f"{count} x {status}" for status, count in sorted(found.bad.items()))
    report.table(
        "Good images with bad ones in their batches",
        ["answers", "bad images", "batches", "images a batch", f"of {_ALONE} differ when alone"],
        [[str(found.answers), refused, str(found.batches), f"{found.batch_images:.1f}", str(found.differ_alone)]],
    )
    wrong = sum(count for status, count in found.bad.items() if status not in (413, 415, 422))
    report.hold(
        [
            none_of("neighbours that failed", found.failed),
            none_of("neighbours whose answer differs in a bit", found.differ),
            none_of("bad images with another answer than 413, 415 or 422", wrong),
            Target("bad images a batch", found.bad.total() / max(1, found.batches), 0.8, at_least=True),
        ]
    )


@program
@click.option("--batches", type=click.IntRange(1), default=200, show_default=True, help="Full, with a bad image.")
def main(settings: dict[str, str], batches: int) -> Report:
    report = Report("reliability.bad_neighbours")
    with serving(**{**SETTINGS, **settings}) as server:
        describe(report, server)
        found = measure(server, batches)
    fill(report, found)
    return report


if __name__ == "__main__":
    main()
