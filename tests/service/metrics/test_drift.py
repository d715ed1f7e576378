from __future__ import annotations

from service.inference.drift import Distances
from service.metrics import Metrics
from service.metrics.drift import DriftGauges

PSI = {"classes": 0.1, "confidence": 0.0, "entropy": 0.2, "energy": 0.3}
HERE = {"provider": "cpu", "precision": "fp32", "requested": "cpu", "passed_over": (), "sha256": "0", "seconds": 1.0}


def lines(metrics: Metrics) -> list[str]:
    return sorted(line for line in metrics.page().decode().splitlines() if line.startswith("resnet_drift"))


def test_distances_are_there_once_there_are_some() -> None:
    metrics = Metrics(None)
    metrics.model_loaded("m", "1", **HERE)  # type: ignore[arg-type]
    assert isinstance(metrics.drift, DriftGauges)
    metrics.drift.show("m", "1", Distances(199))
    assert lines(metrics) == ['resnet_drift_images{model="m",version="1"} 199.0']
    metrics.drift.show("m", "1", Distances(1000, PSI, 0.5))  # type: ignore[arg-type]
    assert lines(metrics) == [
        'resnet_drift_embedding_distance{model="m",version="1"} 0.5',
        'resnet_drift_images{model="m",version="1"} 1000.0',
        'resnet_drift_psi{feature="classes",model="m",version="1"} 0.1',
        'resnet_drift_psi{feature="confidence",model="m",version="1"} 0.0',
        'resnet_drift_psi{feature="energy",model="m",version="1"} 0.3',
        'resnet_drift_psi{feature="entropy",model="m",version="1"} 0.2',
    ]
    # Loaded anew: the window is empty, and nothing old is left.
    metrics.drift.show("m", "1", Distances())
    assert lines(metrics) == ['resnet_drift_images{model="m",version="1"} 0.0']
    metrics.model_gone("m", "1")
    assert lines(metrics) == []
