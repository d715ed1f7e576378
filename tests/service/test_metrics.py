from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.metrics import STAGES, Metrics, forget_dead_workers

DEAD = 2**22 - 1  # above the kernel's largest default process id


def samples(page: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(page.decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def test_the_page_is_prometheus_text_with_help_for_each_metric() -> None:
    for family in text_string_to_metric_families(Metrics(None).page().decode()):
        assert family.documentation
        assert family.name.startswith("resnet_")


def test_two_instances_do_not_mix() -> None:
    one, two = Metrics(None), Metrics(None)
    one.answered("/", "", 200, 0.1)
    assert ("resnet_requests_total", (("code", "200"), ("model", ""), ("route", "/"))) in samples(one.page())
    assert b'code="200"' not in two.page()


def test_requests() -> None:
    metrics = Metrics(None)
    for _ in range(3):
        metrics.answered("/v1/classify", "tiny", 200, 0.003)
    metrics.answered("/v1/classify", "", 429, 0.0)
    found = samples(metrics.page())
    assert found["resnet_requests_total", (("code", "200"), ("model", "tiny"), ("route", "/v1/classify"))] == 3
    assert found["resnet_requests_total", (("code", "429"), ("model", ""), ("route", "/v1/classify"))] == 1
    classified = (("code", "200"), ("model", "tiny"), ("route", "/v1/classify"))
    assert found["resnet_request_seconds_count", classified] == 3
    assert found["resnet_request_seconds_sum", classified] == pytest.approx(0.009)


def test_batches_and_queues() -> None:
    metrics = Metrics(None)
    model = metrics.for_model("tiny", "1")
    model.queued(5)
    model.dispatched([0.1, 0.2, 0.3])
    model.dispatched([])
    model.queued(2)
    found = samples(metrics.page())
    assert found["resnet_queue_images", (("model", "tiny"), ("version", "1"))] == 2
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
        "tiny", "2", provider="cpu", precision="fp32", requested="auto", passed_over=["cuda", "openvino"]
    )
    metrics.ready(True)
    found = samples(metrics.page())
    ran = (("model", "tiny"), ("passed_over", "cuda,openvino"), ("precision", "fp32"), ("provider", "cpu"))
    labels = (*ran, ("requested", "auto"), ("version", "2"))
    assert found["resnet_model_info", labels] == 1
    assert found["resnet_workers_ready", ()] == 1
    metrics.ready(False)
    assert samples(metrics.page())["resnet_workers_ready", ()] == 0


_WORKER = """
import sys
from pathlib import Path
from service.metrics import Metrics
metrics = Metrics(Path(sys.argv[1]))
metrics.answered("/", "tiny", 200, 0.1)
metrics.for_model("tiny", "1").queued(4)
metrics.ready(True)
print("ready", flush=True)
sys.stdin.readline()
sys.stdout.write(metrics.page().decode())
"""


def test_workers_share_their_metrics_and_the_dead_ones_gauges_go(tmp_path: Path) -> None:
    environ = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
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
    requests = ("resnet_requests_total", (("code", "200"), ("model", "tiny"), ("route", "/")))
    assert [page[requests] for page in pages] == [2, 2]
    assert [page["resnet_workers_ready", ()] for page in pages] == [2, 1]  # the first had ended when the second looked
    assert [page["resnet_queue_images", (("model", "tiny"), ("version", "1"))] for page in pages] == [8, 4]


def test_only_gauges_of_dead_processes_are_forgotten(tmp_path: Path) -> None:
    names = [
        f"gauge_livesum_{DEAD}.db",
        f"gauge_livemax_{DEAD}.db",
        f"gauge_livesum_{os.getpid()}.db",
        "gauge_livesum_1.db",
        f"counter_{DEAD}.db",
        f"histogram_{DEAD}.db",
        "gauge_livesum_x.db",
    ]
    for name in names:
        (tmp_path / name).touch()
    forget_dead_workers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[2:])
    forget_dead_workers(tmp_path / "none")
