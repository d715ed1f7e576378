"""docs/metrics.md, which ``python -m service metrics`` prints."""

from __future__ import annotations

from service.metrics.definitions import DEFINITIONS


def reference() -> str:
    """docs/metrics.md, made from the definitions."""
    lines = [
        "# Metrics",
        "",
        "`GET /metrics` gives these in Prometheus' text format, added up over all workers. This page is made from",
        "`service/metrics/definitions.py` by `python -m service metrics`; a test keeps the two equal.",
        "",
        "| name | type | labels | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for one in DEFINITIONS:
        labels = ", ".join(f"`{label}`" for label in one.labels)
        lines.append(f"| `{one.name}` | {one.kind} | {labels} | {one.meaning} |")
    lines += [
        "",
        "`route` is a known route or `other`, `model` a served model or empty: clients cannot make new label values. A",
        "worker that died leaves its counts, but none of its gauges. Counts are handed over once a second, and by the",
        "worker that answers `/metrics` at once; gauges of load are sampled once a second. Where the folder that the",
        "workers share is full, each shows its own metrics, and inference goes on.",
        "",
        "`decode` of `resnet_stage_seconds` is what makes an image RGB: where the model's preprocessing allows it, a",
        "large JPEG is scaled by its decoder, which is one step with decoding. `transform` is what is left: crop,",
        "resize, copy into the batch.",
        "",
        "Histograms have fixed buckets, which fit models of a millisecond and of a second. Native histograms are not",
        "shown: prometheus-client (0.26) has no metric that records one, the files of its multiprocess mode hold plain",
        "numbers, and Prometheus reads native histograms from its protobuf format, which prometheus-client does not",
        "write.",
    ]
    return "\n".join(lines) + "\n"
