from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.metrics import STAGES, Metrics
from service.metrics.definitions import DEFINITIONS
from service.metrics.model import ModelMetrics
from service.metrics.reference import reference
from service.metrics.tally import Tally

# What a model that is gone leaves.
COUNTS = ("resnet_images", "resnet_batch_images", "resnet_prediction")


def samples(page: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(page.decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def test_the_page_is_prometheus_text_with_help_for_each_metric() -> None:
    for family in text_string_to_metric_families(Metrics(None).page().decode()):
        assert family.documentation
        assert family.name.startswith("resnet_")


def test_two_instances_do_not_mix() -> None:
    one, two = Metrics(None), Metrics(None)
    one.answered("/", "", "", 200, 0.1)
    assert ("resnet_requests_total", (("code", "200"), ("model", ""), ("route", "/"), ("version", ""))) in samples(
        one.page()
    )
    assert b'code="200"' not in two.page()


def test_requests() -> None:
    metrics = Metrics(None)
    for _ in range(3):
        metrics.answered("/v1/classify", "tiny", "1", 200, 0.003)
    metrics.answered("/v1/classify", "", "", 429, 0.0)
    found = samples(metrics.page())
    classified = (("code", "200"), ("model", "tiny"), ("route", "/v1/classify"))
    assert found["resnet_requests_total", (*classified, ("version", "1"))] == 3
    assert (
        found["resnet_requests_total", (("code", "429"), ("model", ""), ("route", "/v1/classify"), ("version", ""))]
        == 1
    )
    assert found["resnet_rejected_total", (("reason", "queue_full"),)] == 1
    assert found["resnet_request_seconds_count", classified] == 3
    assert found["resnet_request_seconds_sum", classified] == pytest.approx(0.009)


def test_batches_and_queues() -> None:
    metrics = Metrics(None)
    model = metrics.for_model("tiny", "1")
    model.queued(5, 0.0)
    model.dispatched([0.1, 0.2, 0.3])
    model.dispatched([])
    model.queued(2, time.perf_counter() - 60)
    model.inferred(3)
    found = samples(metrics.page())
    assert found["resnet_queue_images", (("model", "tiny"), ("version", "1"))] == 2
    assert found["resnet_queue_oldest_seconds", (("model", "tiny"), ("version", "1"))] >= 60
    assert found["resnet_images_total", (("model", "tiny"), ("version", "1"))] == 3
    assert found["resnet_last_success_timestamp_seconds", ()] == pytest.approx(time.time(), abs=600)
    assert found["resnet_batch_images_count", (("model", "tiny"), ("version", "1"))] == 1
    assert found["resnet_batch_images_sum", (("model", "tiny"), ("version", "1"))] == 3
    assert found["resnet_stage_seconds_count", (("stage", "queue"),)] == 3


def test_two_versions_of_a_model_have_their_own_queues() -> None:
    """A gauge that two batchers set would show whichever spoke last."""
    metrics = Metrics(None)
    one, two = metrics.for_model("tiny", "1"), metrics.for_model("tiny", "2")
    one.queued(5)
    two.queued(1)
    found = samples(metrics.page())
    assert sum(value for (name, _), value in found.items() if name == "resnet_queue_images") == 6


@pytest.mark.parametrize("stage", STAGES)
def test_stages(stage: str) -> None:
    metrics = Metrics(None)
    with metrics.timed(stage):
        pass
    assert samples(metrics.page())["resnet_stage_seconds_count", (("stage", stage),)] == 1


def test_an_unknown_stage_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        Metrics(None).stage("made up", 1)


def test_models_and_readiness() -> None:
    metrics = Metrics(None)
    metrics.model_loaded(
        "tiny",
        "2",
        provider="cpu",
        precision="fp32",
        requested="auto",
        passed_over=["cuda", "openvino"],
        sha256="abc",
        seconds=2.5,
    )
    metrics.ready(True)
    found = samples(metrics.page())
    ran = (("model", "tiny"), ("passed_over", "cuda,openvino"), ("precision", "fp32"), ("provider", "cpu"))
    labels = (*ran, ("requested", "auto"), ("sha256", "abc"), ("version", "2"))
    assert found["resnet_model_load_seconds", (("model", "tiny"), ("version", "2"))] == 2.5
    assert found["resnet_model_info", labels] == 1
    assert found["resnet_workers_ready", ()] == 1
    metrics.ready(False)
    assert samples(metrics.page())["resnet_workers_ready", ()] == 0


_WORKER = """
import sys
import time
from pathlib import Path
from service.metrics import Metrics
metrics = Metrics(Path(sys.argv[1]))
metrics.answered("/", "tiny", "1", 200, 0.1)
metrics.for_model("tiny", "1").queued(4, None)
metrics.ready(True)
metrics.flush()
print("ready", flush=True)
sys.stdin.readline()
sys.stdout.write(metrics.page().decode())
"""


def test_workers_share_their_metrics_and_the_dead_ones_gauges_go(tmp_path: Path) -> None:
    environ = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[3])}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(tmp_path)],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        pages = [samples(worker.communicate("\n", timeout=60)[0].encode()) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    requests = ("resnet_requests_total", (("code", "200"), ("model", "tiny"), ("route", "/"), ("version", "1")))
    assert [page[requests] for page in pages] == [2, 2]
    assert [page["resnet_workers_ready", ()] for page in pages] == [2, 1]  # the first had ended when the second looked
    assert [page["resnet_queue_images", (("model", "tiny"), ("version", "1"))] for page in pages] == [8, 4]


@pytest.mark.parametrize(
    ("status", "was_ready", "reason"),
    [
        (429, True, "queue_full"),
        (413, True, "too_large"),
        (499, True, "cancelled"),
        (408, True, "slow_client"),
        (504, True, "deadline"),
        (503, True, "draining"),
        (503, False, "loading"),
    ],
)
def test_what_is_not_served_is_counted_by_reason(status: int, was_ready: bool, reason: str) -> None:
    metrics = Metrics(None)
    if was_ready:
        metrics.ready(True)
    metrics.answered("/v1/classify", "", "", status, 0.0)
    found = {key: value for key, value in samples(metrics.page()).items() if key[0] == "resnet_rejected_total"}
    assert found == {("resnet_rejected_total", (("reason", reason),)): 1}


def test_what_never_became_a_request_is_counted_by_reason() -> None:
    metrics = Metrics(None)
    metrics.rejected("bad_http")
    metrics.rejected("bad_http")
    found = samples(metrics.page())
    assert found["resnet_rejected_total", (("reason", "bad_http"),)] == 2
    assert not [key for key in found if key[0] == "resnet_requests_total"]


def test_bytes_failures_and_samples() -> None:
    metrics = Metrics(None)
    metrics.received(1000)
    metrics.received(24)
    metrics.decode_failed("jpeg", "bad_image")
    metrics.decode_failed(None, "not_an_image")
    metrics.sample(slots=4, slots_busy=3, images_held=7)
    found = samples(metrics.page())
    assert found["resnet_request_bytes_total", ()] == 1024
    assert found["resnet_decode_failures_total", (("format", "jpeg"), ("reason", "bad_image"))] == 1
    assert found["resnet_decode_failures_total", (("format", "none"), ("reason", "not_an_image"))] == 1
    assert (found["resnet_slots", ()], found["resnet_slots_busy", ()], found["resnet_images_held", ()]) == (4, 3, 7)
    assert found["resnet_process_resident_bytes", ()] > 2**20
    assert found["resnet_process_cpu_seconds_total", ()] > 0
    assert found["resnet_process_open_files", ()] >= 3


def test_the_page_of_the_documentation_is_made_from_the_definitions() -> None:
    assert (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8") == reference()


def test_every_definition_is_on_the_page() -> None:
    metrics = Metrics(None)
    shown = metrics.page().decode()
    assert all(f"# TYPE {definition.name}" in shown for definition in DEFINITIONS)
    assert len({definition.name for definition in DEFINITIONS}) == len(DEFINITIONS)


def test_a_model_that_is_gone_has_its_counts_and_no_gauges() -> None:
    metrics = Metrics(None)
    made = {}
    for version in ("1", "2"):
        made[version] = metrics.for_model("tiny", version, ("cat", "dog"))
        made[version].predicted(np.eye(2, dtype=np.float32))
        made[version].inferred(3)
        metrics.model_loaded(
            "tiny", version, provider="cpu", precision="fp32", requested="auto", passed_over=[], sha256="0", seconds=1.0
        )
    made["1"].close()
    metrics.model_gone("tiny", "1")
    metrics.model_gone("tiny", "1")  # a second time changes nothing
    for _ in range(2):
        page = metrics.page().decode()
        of_gone = [line.partition("{")[0] for line in page.splitlines() if 'version="1"' in line]
        assert {"resnet_images_total", "resnet_predictions_total"} <= set(of_gone)
        assert not {name for name in of_gone if not name.startswith(COUNTS)}
        assert page.count("resnet_model_info{") == page.count("resnet_model_load_seconds{") == 1
    assert samples(metrics.page())["resnet_last_success_timestamp_seconds", ()] > 0
    assert [*metrics._models] == [made["2"]], "what is gone is looked at for ever"


def test_a_model_that_comes_back_is_shown_again() -> None:
    metrics = Metrics(None)
    for provider in ("cpu", "openvino"):
        metrics.model_loaded(
            "tiny", "1", provider=provider, precision="fp32", requested="auto", passed_over=[], sha256="0", seconds=1.0
        )
    (info,) = [line for line in metrics.page().decode().splitlines() if line.startswith("resnet_model_info{")]
    assert 'provider="openvino"' in info


class _Going(ModelMetrics):
    """A model that is gone; whenever that is asked for, another comes, as of the event loop beside the page."""

    def __init__(self, come: Callable[[], ModelMetrics]) -> None:
        self._come = come
        self.came: list[ModelMetrics] = []
        self.last_s = 0.0

    @property
    def closed(self) -> bool:  # type: ignore[override]
        self.came.append(self._come())
        return True

    @property
    def tallies(self) -> tuple[Tally, ...]:
        return ()

    def flush(self) -> None:
        pass


def test_a_model_that_comes_while_a_page_is_made_is_not_lost() -> None:
    metrics = Metrics(None)
    going = _Going(lambda: metrics.for_model("tiny", "1"))
    metrics._models[going] = None
    kept = metrics.for_model("tiny", "0")
    metrics.page()
    assert going.came
    assert [*metrics._models] == [kept, *going.came]
