"""Makes the Grafana dashboard: ``python docker/grafana/dashboard.py > docker/grafana/dashboards/resnet-serving.json``.

The story from top to bottom: traffic, errors, latency, saturation, batching, predictions, drift,
canary, models, GPUs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DATASOURCE = {"type": "prometheus", "uid": "prometheus"}
COLUMNS = 24
HEIGHT = 8
LOW_QUANTILES = {"p5": 0.05, "p25": 0.25, "p50": 0.5}
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass(frozen=True)
class Panel:
    """One graph: what it says, its unit, and expressions by legend; ``least`` is where its axis begins."""

    title: str
    says: str
    unit: str
    series: dict[str, str]
    kind: str = "timeseries"
    width: int = 8
    least: int | None = 0


def quantiles(metric: str, where: str = "", of: Mapping[str, float] = QUANTILES) -> dict[str, str]:
    return {
        name: f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket{where}[$__rate_interval])))"
        for name, q in of.items()
    }


def mean(metric: str, where: str) -> str:
    """By model."""
    rates = (f"sum by (model) (rate({metric}_{part}{where}[$__rate_interval]))" for part in ("sum", "count"))
    return " / ".join(rates)


ROWS: dict[str, list[Panel]] = {
    "Now": [
        Panel("Workers ready", "None: nothing is served.", "short", {"ready": "sum(resnet_workers_ready)"}, "stat", 4),
        Panel("Images a second", "Inferred, all models.", "short",
              {"images": "sum(rate(resnet_images_total[$__rate_interval]))"}, "stat", 5),
        Panel("Errors", "5xx and refusals, of the requests for inference. The objective allows 0.1 %.", "percentunit",
              {"errors": "resnet:errors:ratio5m"}, "stat", 5),
        Panel("Slow answers", "Longer than a quarter of a second. The objective allows 1 %.", "percentunit",
              {"slow": "resnet:slow:ratio5m"}, "stat", 5),
        Panel("Since the last image", "Grows where nothing comes, or nothing is answered.", "s",
              {"age": "time() - max(resnet_last_success_timestamp_seconds > 0)"}, "stat", 5),
    ],
    "Traffic": [
        Panel("Requests", "By route and status.", "reqps",
              {"{{route}} {{code}}": "sum by (route, code) (rate(resnet_requests_total[$__rate_interval]))"}),
        Panel("Images", "Inferred, by model and version.", "short",
              {"{{model}} {{version}}": "sum by (model, version) (rate(resnet_images_total[$__rate_interval]))"}),
        Panel("Bytes in", "Bodies that were read.", "Bps",
              {"bytes": "rate(resnet_request_bytes_total[$__rate_interval])"}),
    ],
    "Errors": [
        Panel("Not served", "By reason. queue_full: more comes than the machine can do.", "reqps",
              {"{{reason}}": "sum by (reason) (rate(resnet_rejected_total[$__rate_interval]))"}),
        Panel("Server errors", "5xx: the service's own faults.", "reqps",
              {"{{code}}": 'sum by (code) (rate(resnet_requests_total{code=~"5.."}[$__rate_interval])) '
                           "or vector(0)"}),
        Panel("Images that cannot be decoded", "By format and reason: a client's fault, or a hostile try.", "short",
              {"{{format}} {{reason}}":
               "sum by (format, reason) (rate(resnet_decode_failures_total[$__rate_interval]))"}),
    ],
    "Latency": [
        Panel("Requests answered", "From the first byte to the answer, status 200.", "s",
              quantiles("resnet_request_seconds", '{code="200"}')),
        Panel("Stages, p99", "Where the time goes: a body read, an image decoded and queued, a batch inferred.", "s",
              {"{{stage}}": "histogram_quantile(0.99, sum by (stage, le) "
                            "(rate(resnet_stage_seconds_bucket[$__rate_interval])))"}),
        Panel("Stages, seconds a second", "How much of the machine each stage takes.", "short",
              {"{{stage}}": "sum by (stage) (rate(resnet_stage_seconds_sum[$__rate_interval]))"}),
    ],
    "Saturation": [
        Panel("Slots", "All busy for long: it is full.", "short",
              {"busy": "sum(resnet_slots_busy)", "all": "sum(resnet_slots)"}, width=6),
        Panel("Images waiting", "For a slot, and in the service in all.", "short",
              {"queued": "sum(resnet_queue_images)", "held": "sum(resnet_images_held)"}, width=6),
        Panel("Oldest image", "How long the first in the queue waits.", "s",
              {"{{model}}": "max by (model) (resnet_queue_oldest_seconds)"}, width=6),
        Panel("Processor", "Cores in use.", "short",
              {"cores": "rate(resnet_process_cpu_seconds_total[$__rate_interval])"}, width=6),
    ],
    "Batching": [
        Panel("Batch sizes", "Quantiles.", "short", quantiles("resnet_batch_images")),
        Panel("Images a batch", "The mean; larger batches cost less an image.", "short",
              {"{{model}}": "sum by (model) (rate(resnet_batch_images_sum[$__rate_interval])) "
                            "/ sum by (model) (rate(resnet_batch_images_count[$__rate_interval]))"}),
        Panel("Time in the queue", "Of images, quantiles.", "s", quantiles("resnet_stage_seconds", '{stage="queue"}')),
    ],
    "Predictions": [
        Panel("Classes", "The most probable ones, the ten most frequent; of large models the expected classes.",
              "short",
              {"{{model}} {{class}}":
               "topk(10, sum by (model, class) (rate(resnet_predictions_total[$__rate_interval])))"}, width=12),
        Panel("Confidence", "The most probable class's probability: half, a quarter, a twentieth have less.",
              "percentunit", quantiles("resnet_prediction_confidence", of=LOW_QUANTILES), width=12),
    ],
    "Drift": [
        Panel("Distance from the reference", "Population stability index; above 0.25 other images come.", "short",
              {"{{model}} {{version}} {{feature}}": "max by (model, version, feature) (resnet_drift_psi)"}),
        Panel("Embeddings", "The mean's distance from the reference's, in standard deviations.", "short",
              {"{{model}} {{version}}": "max by (model, version) (resnet_drift_embedding_distance)"}),
        Panel("Images compared", "In the window.", "short",
              {"{{model}} {{version}}": "max by (model, version) (resnet_drift_images)"}),
    ],
    "Canary, in the shadow": [
        Panel("Agreement", "Of its best class with the stable version's.", "percentunit",
              {"{{model}}":
               'sum by (model) (rate(resnet_shadow_images_total{outcome="agreed"}[$__rate_interval])) / '
               'sum by (model) (rate(resnet_shadow_images_total{outcome=~"agreed|disagreed"}[$__rate_interval]))'}),
        Panel("Probability", "How far the canary's is from the stable version's, of that one's best class.", "short",
              quantiles("resnet_shadow_probability_difference")),
        Panel("Slower by", "The canary than the stable version, of the same images, in the mean.", "s",
              {"{{model}}": mean("resnet_shadow_seconds", '{by="canary"}') + " - "
                            + mean("resnet_shadow_seconds", '{by="stable"}')}, least=None),
    ],
    "Models and workers": [
        Panel("Models", "What is served, and on what.", "short",
              {"{{model}} {{version}} {{provider}} {{precision}}":
               "max by (model, version, provider, precision) (resnet_model_info)"}),
        Panel("Loads", "Of versions, in the last hour; a failed one leaves the version before in service.", "short",
              {"{{model}} {{outcome}}": "sum by (model, outcome) (increase(resnet_model_loads_total[1h]))"}, width=4),
        Panel("Time to load", "Open and warm.", "s",
              {"{{model}} {{version}}": "max by (model, version) (resnet_model_load_seconds)"}, width=4),
        Panel("Memory", "Resident, all workers.", "bytes", {"resident": "resnet_process_resident_bytes"}, width=4),
        Panel("Restarts", "The youngest worker's age.", "s",
              {"age": "time() - max(resnet_process_start_time_seconds)"}, width=4),
    ],
    "GPUs": [
        Panel("Utilisation", "Of the time; near 1 is full.", "percentunit",
              {"{{instance}} {{gpu}}": "max by (instance, gpu) (resnet_gpu_utilisation_ratio)"}, width=12),
        Panel("GPU memory", "In use, by whoever uses it.", "percentunit",
              {"{{instance}} {{gpu}}": "max by (instance, gpu) (resnet_gpu_memory_used_bytes) "
                                       "/ max by (instance, gpu) (resnet_gpu_memory_bytes)"}, width=12),
    ],
}  # fmt: skip


def panel(of: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    targets = [
        {"datasource": DATASOURCE, "expr": expression, "legendFormat": legend, "refId": chr(ord("A") + i)}
        for i, (legend, expression) in enumerate(of.series.items())
    ]
    return {
        "id": number,
        "type": of.kind,
        "title": of.title,
        "description": of.says,
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": of.width, "h": HEIGHT if of.kind == "timeseries" else HEIGHT // 2},
        "fieldConfig": {
            "defaults": {"unit": of.unit} | ({} if of.least is None else {"min": of.least}),
            "overrides": [],
        },
        "targets": targets,
    }


def dashboard() -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    y = 0
    for row, of_row in ROWS.items():
        number = len(panels) + 1
        panels.append(
            {
                "id": number,
                "type": "row",
                "title": row,
                "collapsed": False,
                "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
            }
        )
        y += 1
        x = 0
        for one in of_row:
            panels.append(panel(one, len(panels) + 1, x, y))
            x += one.width
        y += HEIGHT if of_row[0].kind == "timeseries" else HEIGHT // 2
    return {
        "uid": "resnet-serving",
        "title": "ResNet serving",
        "tags": ["resnet-serving"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": []},
        "annotations": {"list": []},
        "panels": panels,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dashboard(), indent=1) + "\n")
