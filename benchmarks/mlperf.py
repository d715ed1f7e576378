"""MLCommons LoadGen's four scenarios against the service over HTTP.

    python -m benchmarks.mlperf --store models --model mine

LoadGen decides what is sent when and measures; this program carries its samples to the service and back.
This is no MLPerf submission: no accuracy run, no compliance test, no reviewed system, images of your own, and runs
shorter than the rules ask for unless --seconds 600 says otherwise. Needs the extra `bench`.

LoadGen: https://github.com/mlcommons/inference/tree/master/loadgen
"""

from __future__ import annotations

import argparse
import asyncio
import re
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import uvloop

from benchmarks.connection import Connection, request_bytes
from benchmarks.images import load_images
from benchmarks.report import Report, common_options, figure
from benchmarks.server import bento
from benchmarks.subject import add_model_options, settings_of

OFFICIAL_SECONDS: Final = 600.0
SERVER_LATENCY_S: Final = 0.015  # MLPerf's limit for ResNet-50 in the Server scenario
_NOT_MLPERF: Final = "This is no MLPerf submission."


class Carrier:
    """Sends samples on keep-alive connections from a thread of its own, and tells LoadGen of each answer."""

    def __init__(self, loadgen: Any, url: str, bodies: Sequence[bytes], connections: int) -> None:
        self._loadgen = loadgen
        self._requests = [request_bytes(url, body, "image/jpeg") for body in bodies]
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "localhost", parts.port or 80
        self._waiting: deque[Any] = deque()
        self._free: list[Connection] = []
        self._ids: dict[Connection, int] = {}
        self.failed = 0
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(connections), self._loop).result()

    async def _open(self, connections: int) -> None:
        for _ in range(connections):
            _, connection = await self._loop.create_connection(
                lambda: Connection(self._answered), self._host, self._port
            )
            self._free.append(connection)

    def issue(self, samples: list[Any]) -> None:
        """LoadGen's call, on its own thread."""
        self._loop.call_soon_threadsafe(self._take, [(sample.id, sample.index) for sample in samples])

    def _take(self, samples: list[tuple[int, int]]) -> None:
        self._waiting.extend(samples)
        while self._free and self._waiting:
            self._send(self._free.pop())

    def _send(self, connection: Connection) -> None:
        self._ids[connection], index = self._waiting.popleft()
        connection.send(self._requests[index], 0.0)

    def _answered(self, connection: Connection, status: int) -> None:
        self.failed += status != 200
        # LoadGen wants every sample back; a failed one makes the whole run worthless, and the report says so.
        self._loadgen.QuerySamplesComplete([self._loadgen.QuerySampleResponse(self._ids.pop(connection), 0, 0)])
        if self._waiting and connection.usable:
            self._send(connection)
        elif connection.usable:
            self._free.append(connection)

    def close(self) -> None:
        def end() -> None:
            for connection in self._free:
                connection.close()
            self._loop.stop()

        self._loop.call_soon_threadsafe(end)
        self._thread.join()
        self._loop.close()


@contextmanager
def _test(loadgen: Any, carrier: Carrier, samples: int) -> Iterator[tuple[int, int]]:
    sut = loadgen.ConstructSUT(carrier.issue, lambda: None)
    qsl = loadgen.ConstructQSL(samples, samples, lambda indices: None, lambda indices: None)
    try:
        yield sut, qsl
    finally:
        loadgen.DestroyQSL(qsl)
        loadgen.DestroySUT(sut)


def run_scenario(loadgen: Any, scenario: str, carrier: Carrier, samples: int, seconds: float, rate: float) -> str:
    """One performance run; LoadGen's summary. ``rate`` is what Server offers and Offline expects, images a second."""
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, scenario)
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = int(1000 * seconds)
    settings.max_duration_ms = int(4000 * seconds) + 60_000
    settings.min_query_count = 1
    settings.server_target_qps = rate
    settings.server_target_latency_ns = int(1e9 * SERVER_LATENCY_S)
    settings.offline_expected_qps = rate
    with tempfile.TemporaryDirectory() as folder, _test(loadgen, carrier, samples) as (sut, qsl):
        logs = loadgen.LogSettings()
        logs.enable_trace = False
        logs.log_output.outdir = folder
        logs.log_output.copy_summary_to_stdout = False
        loadgen.StartTestWithLogSettings(sut, qsl, settings, logs)
        return (Path(folder) / "mlperf_log_summary.txt").read_text()


_FIGURES: Final = {
    "SingleStream": (r"90\.0+th percentile latency \(ns\)", "p90 ms", 1e-6),
    "MultiStream": (r"99\.0+th percentile latency \(ns\)", "p99 ms of 8 images", 1e-6),
    "Server": ("Completed samples per second", "images/s", 1.0),
    "Offline": ("Samples per second", "images/s", 1.0),
}


def read_summary(scenario: str, summary: str) -> tuple[float, str, str]:
    """A scenario's figure, what it is, and LoadGen's verdict with its reasons."""
    name, unit, scale = _FIGURES[scenario]
    found = re.search(rf"^{name}\s*:\s*([0-9.eE+]+)", summary, re.MULTILINE)
    verdict = re.search(r"^Result is\s*:\s*(\w+)", summary, re.MULTILINE)
    if found is None or verdict is None:
        raise ValueError(f"LoadGen's summary has no {name}: {summary}")
    reasons = [line.strip() for line in summary.splitlines() if re.search(r"satisfied\s*:\s*no\b", line, re.IGNORECASE)]
    return float(found[1]) * scale, unit, ", ".join([verdict[1], *reasons])


def main() -> None:
    parser = common_options("mlperf", __doc__, seconds=20.0)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = __doc__
    add_model_options(parser)
    parser.add_argument("--rate", type=float, help="Server: images a second (default: 0.6 of what Offline reached)")
    parser.add_argument("--connections", type=int, default=32, help="requests on their way at most (%(default)s)")
    options = parser.parse_args()
    try:
        import mlperf_loadgen as loadgen
    except ImportError:
        raise SystemExit("mlcommons-loadgen is not installed; it is in the extra `bench`") from None
    if options.smoke:
        options.seconds = 0.5
    images = load_images(options.images)
    report = Report("mlperf", options.smoke)
    rows, rate = [], 100.0
    with bento(settings_of(options)) as server:
        model = server.models()[0]
        report.subject = {
            "model": f"{model['name']} version {model['version']}, {model['provider']} {model['precision']}",
            "images": images.origin,
        }
        for scenario in ("SingleStream", "MultiStream", "Offline", "Server"):
            carrier = Carrier(loadgen, server.classify, images.bodies, options.connections)
            try:
                summary = run_scenario(loadgen, scenario, carrier, len(images.bodies), options.seconds, rate)
            finally:
                carrier.close()
            value, unit, verdict = read_summary(scenario, summary)
            if scenario == "SingleStream":
                rate = 4000 / value  # more than Offline can reach, so that its samples last for its time
            if scenario == "Offline":
                rate = options.rate or 0.6 * value
            offered = f"{rate:.0f} images/s, p99 within {1000 * SERVER_LATENCY_S:g} ms" if scenario == "Server" else "-"
            rows.append([scenario, figure(value), unit, offered, verdict, str(carrier.failed)])
            report.data[scenario] = {"value": value, "unit": unit, "verdict": verdict, "failed": carrier.failed}
    report.table(
        "LoadGen's scenarios, over HTTP", ["scenario", "figure", "of", "asked for", "LoadGen says", "failed"], rows
    )
    report.notes.append(_NOT_MLPERF)
    if options.seconds < OFFICIAL_SECONDS:
        report.notes.append(f"Short runs of {options.seconds:g} s; the rules ask for {OFFICIAL_SECONDS:g} s.")
    report.finish(options.json)


if __name__ == "__main__":
    main()
