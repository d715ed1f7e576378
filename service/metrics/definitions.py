"""Every metric: its name, type, labels, buckets and meaning. docs/metrics.md is made from this table.

Labels are bounded: routes and models are known names, never what a client typed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

# From 100 microseconds to 10 seconds: fits a stage of the smallest net and a request to the largest.
_SECONDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
_DIFFERENCES: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_PROBABILITIES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)
_IMAGES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)

STAGES: Final = ("read", "decode", "transform", "queue", "infer", "post", "draw")


@dataclass(frozen=True)
class Definition:
    """One metric. ``mode`` says how a gauge's values of several workers become one."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = ()
    mode: Literal["livesum", "livemax", "livemostrecent"] = "livesum"


_MODEL: Final = ("model", "version")

REQUESTS = Definition(
    "counter", "resnet_requests_total", ("route", *_MODEL, "code"),
    "Requests answered, by route, model and version (empty where none was reached) and HTTP status, which gRPC's "
    "(routes `grpc/...`) are given, too; 499: the client left before its answer.",
)  # fmt: skip
REQUEST_SECONDS = Definition(
    "histogram", "resnet_request_seconds", ("route", "model", "code"),
    "Time from a request's first byte to its answer.", _SECONDS,
)  # fmt: skip
REJECTED = Definition(
    "counter", "resnet_rejected_total", ("reason",),
    "Requests not served through no fault of their images: queue_full, too_large, deadline, cancelled (the client "
    "left), draining (the service stops), loading (it is not ready), unauthorized (a wrong key or none), key_rate and "
    "key_concurrency (more than the holder of a key may send), too_many_jobs, slow_client (headers or body did not "
    "come in time); and what never became one: bad_http, head_too_large, connections (closed or refused "
    "for want of room).",
)  # fmt: skip
REQUEST_BYTES = Definition("counter", "resnet_request_bytes_total", (), "Bytes of request bodies that were read.")
IMAGES = Definition("counter", "resnet_images_total", _MODEL, "Images inferred.")
PREDICTIONS = Definition(
    "counter", "resnet_predictions_total", (*_MODEL, "class"),
    "Images by the class that is most probable. Of a model with more than 100 classes those that its reference "
    "(docs/drift.md) has most often have their name; all others are `other`.",
)  # fmt: skip
CONFIDENCE = Definition(
    "histogram", "resnet_prediction_confidence", _MODEL,
    "The most probable class's probability, 0 to 1, at the model's calibrated temperature.", _PROBABILITIES,
)  # fmt: skip
DECODE_FAILURES = Definition(
    "counter", "resnet_decode_failures_total", ("format", "reason"),
    "Images that could not be decoded, by what they begin like (or none) and the error's code.",
)  # fmt: skip
STAGE_SECONDS = Definition(
    "histogram", "resnet_stage_seconds", ("stage",),
    "Time in each stage: read (a request's body), decode (an image to RGB), transform (what the network sees of it, "
    "resized), queue (an image), infer and post (a batch), draw (a heatmap's picture).", _SECONDS,
)  # fmt: skip
BATCH_IMAGES = Definition(
    "histogram", "resnet_batch_images", _MODEL, "Images in a batch, those that turn out broken included.", _IMAGES
)
QUEUE_IMAGES = Definition("gauge", "resnet_queue_images", _MODEL, "Images waiting for a slot.")
QUEUE_OLDEST = Definition(
    "gauge", "resnet_queue_oldest_seconds", _MODEL, "How long the first image in the queue waits.", mode="livemax"
)
SLOTS = Definition("gauge", "resnet_slots", (), "Batches that can be computed at the same time.")
SLOTS_BUSY = Definition("gauge", "resnet_slots_busy", (), "Slots that compute a batch.")
GATE_IMAGES = Definition("gauge", "resnet_images_held", (), "Images between acceptance and answer.")
MODEL_LOAD_SECONDS = Definition(
    "gauge", "resnet_model_load_seconds", _MODEL, "Time to open a model and warm it.", mode="livemax"
)
MODEL_INFO = Definition(
    "gauge", "resnet_model_info", (*_MODEL, "provider", "precision", "requested", "passed_over", "sha256"),
    "1 for each model served: the execution provider and precision it runs on, the provider asked for, those that "
    "were tried before it, and the file's hash.", mode="livemax",
)  # fmt: skip
MODEL_LOADS = Definition(
    "counter", "resnet_model_loads_total", ("model", "outcome"),
    "Model versions that were loaded, at the start and since, and those that could not be: loaded, failed.",
)  # fmt: skip
STORE_REACHABLE = Definition(
    "gauge", "resnet_store_reachable", ("store",),
    "1 where the store at a URL answered when it was last asked, else 0; not there where the store is a folder.",
    mode="livemostrecent",
)  # fmt: skip
SHADOW_IMAGES = Definition(
    "counter", "resnet_shadow_images_total", ("model", "outcome"),
    "Copies for a model's canary: agreed or disagreed with the stable version's best class, dropped as no slot was "
    "idle or enough were under way, or failed.",
)  # fmt: skip
SHADOW_DIFFERENCE = Definition(
    "histogram", "resnet_shadow_probability_difference", ("model",),
    "How far the canary's probability of the stable version's best class is from that version's.", _DIFFERENCES,
)  # fmt: skip
SHADOW_SECONDS = Definition(
    "histogram", "resnet_shadow_seconds", ("model", "by"),
    "From submission to answer of images that both computed, by who did: stable or canary.", _SECONDS,
)  # fmt: skip
DRIFT_PSI = Definition(
    "gauge", "resnet_drift_psi", (*_MODEL, "feature"),
    "How far the last images are from the model's reference (docs/drift.md), by the population stability index of "
    "classes, confidence, entropy or energy, less what chance makes of it; of the worker that is farthest. Not there "
    "without a reference, or with too few images.", mode="livemax",
)  # fmt: skip
DRIFT_EMBEDDING = Definition(
    "gauge", "resnet_drift_embedding_distance", _MODEL,
    "How far the mean embedding of the last images is from the reference's, in its standard deviations; as above.",
    mode="livemax",
)  # fmt: skip
DRIFT_IMAGES = Definition(
    "gauge", "resnet_drift_images", _MODEL,
    "Images in the window that is compared with the reference, of the worker that has most.", mode="livemax",
)  # fmt: skip
WORKERS_READY = Definition("gauge", "resnet_workers_ready", (), "Workers whose models are loaded and warm.")
JOBS = Definition(
    "gauge", "resnet_jobs", ("state",), "Jobs held on disk: queued, running, done, failed.", mode="livemostrecent"
)
JOB_IMAGES = Definition(
    "counter", "resnet_job_images_total", ("outcome",), "Images of jobs, by outcome: done or failed."
)
LAST_SUCCESS = Definition(
    "gauge", "resnet_last_success_timestamp_seconds", (), "When an image was last inferred, in Unix time.",
    mode="livemax",
)  # fmt: skip
RESIDENT_BYTES = Definition("gauge", "resnet_process_resident_bytes", (), "Resident memory of all workers.")
CPU_SECONDS = Definition("counter", "resnet_process_cpu_seconds_total", (), "Processor time that the workers used.")
OPEN_FILES = Definition(
    "gauge", "resnet_process_open_files", (), "Open files and sockets of the worker that has most.", mode="livemax"
)
LOG_DROPPED = Definition(
    "counter", "resnet_log_lines_dropped_total", (),
    "Lines of the log that were not written, as what reads stderr did not keep up.",
)  # fmt: skip
GPU_MEMORY_USED = Definition(
    "gauge", "resnet_gpu_memory_used_bytes", ("gpu",),
    "Memory in use on a GPU, by NVML's index, whoever uses it; where models run on CUDA or TensorRT and NVML tells.",
    mode="livemostrecent",
)  # fmt: skip
GPU_MEMORY = Definition(
    "gauge", "resnet_gpu_memory_bytes", ("gpu",), "Memory of a GPU; as above.", mode="livemostrecent"
)
GPU_UTILISATION = Definition(
    "gauge", "resnet_gpu_utilisation_ratio", ("gpu",),
    "Share of the last moments, 0 to 1, in which a GPU computed anything; as above.", mode="livemostrecent",
)  # fmt: skip
START_TIME = Definition(
    "gauge", "resnet_process_start_time_seconds", (), "When the youngest worker started, in Unix time.", mode="livemax"
)

DEFINITIONS: Final = tuple(value for value in list(globals().values()) if isinstance(value, Definition))
