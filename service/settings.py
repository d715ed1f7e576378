"""The settings, by the part of the service that takes them: types, bounds, defaults and what they mean."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)

from model_store.manifest import Precision, parse_reference
from model_store.store import EMBEDDED_MODELS

Provider = Literal["tensorrt", "cuda", "openvino", "cpu"]
_VERSION_POLICY: Final = re.compile(r"stable|all|latest(:[1-9][0-9]?)?")
ImageFormat = Literal["jpeg", "png", "webp", "bmp", "gif", "tiff"]


def _split(value: object) -> object:
    """``"a, b"`` from the environment as ``("a", "b")``."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _model_references(value: object) -> object:
    """``"*"`` as the empty tuple, ``"name,name@2"`` as pairs of name and version."""
    if not isinstance(value, str):
        return value
    if value.strip() == "*":
        return ()
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if not parts:
        raise ValueError("names no model; '*' takes all")
    references = tuple(parse_reference(part) for part in parts)
    if len(set(references)) < len(references):
        raise ValueError("names a model twice")
    return references


class Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def _some_path(value: object) -> object:
    """Refuses "", which would be the current folder."""
    if isinstance(value, str) and not value.strip():
        raise ValueError("names no folder")
    return value


def _absolute(path: Path) -> Path:
    """Workers may run in another folder than the command that started them."""
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    return path


Folder = Annotated[Path, BeforeValidator(_some_path)]


def _version_policy(policy: str) -> str:
    if not _VERSION_POLICY.fullmatch(policy):
        raise ValueError("must be stable, all, latest or latest:N, with N from 1 to 99")
    return policy


class StoreSettings(Group):
    """Which models are served."""

    model_store: Folder = Field(EMBEDDED_MODELS, description="Folder of models, laid out as NAME/VERSION.")
    models: Annotated[tuple[tuple[str, str | None], ...], BeforeValidator(_model_references)] = Field(
        (),
        description="Models to serve: `name` (the versions that `RESNET_VERSION_POLICY` says) or `name@version` (that "
        "one alone, by number or alias), separated by commas; `*` for all. "
        "The first is the one that answers where a request names none.",
    )
    version_policy: Annotated[str, AfterValidator(_version_policy)] = Field(
        "stable",
        description="Versions served of a model named without one: `stable` (the promoted one, else the newest), "
        "`latest` or `latest:N` (the newest, or the N newest, as well) or `all`. Versions that an alias names are "
        "always served.",
    )
    watch_s: float = Field(
        5.0,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="Seconds between two looks at the store for versions that are new, promoted or removed; 0: what "
        "was loaded at start stays.",
    )
    profiles: Literal["auto", "off"] | Annotated[Folder, AfterValidator(_absolute)] = Field(
        "auto",
        description="Where profiles of `python -m service.tune` are looked for. `auto`: beside each model's versions; "
        "`off`: nowhere, none is used; or a folder.",
    )


class InferenceSettings(Group):
    """How models run."""

    provider: Literal["auto"] | Provider = Field(
        "auto",
        description="Execution provider: `auto`, `tensorrt`, `cuda`, `openvino` or `cpu`. `auto` takes CUDA if it is "
        "there and works, else OpenVINO, else CPU; one asked for by name that cannot be had stops the start.",
    )
    precision: Literal["auto"] | Precision = Field(
        "auto",
        description="The variant that runs. `auto`: the fastest of int8, bf16 (OpenVINO alone) and fp16 (GPUs) that "
        "the model has, that passed its gate on this kind of provider and that the CPU has instructions for, else "
        "fp32. `fp32`, `bf16`, `fp16` or `int8` by name: that one, gated or not, or the start stops.",
    )
    slots: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = Field(
        "auto",
        description="Batches computed at the same time in a worker. `auto`: its share of the cores; 2 on a GPU.",
    )
    spread_lone_image: bool = Field(
        True,
        description="On CPUs, an image that comes while nothing else is computed gets all cores, which shortens its "
        "time; the model is then held in memory twice.",
    )
    max_batch: int = Field(8, ge=1, le=256, description="Most images in one batch; every size is run before ready.")
    max_delay_s: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Seconds an image may wait for others while a slot is free. 0 suits CPUs; accelerators may gain.",
    )
    preferred_batches: Annotated[tuple[Annotated[int, Field(ge=1, le=256)], ...], BeforeValidator(_split)] = Field(
        (),
        description="Batch sizes that run best, separated by commas: larger queues are cut to one of them, and a batch "
        "of the largest leaves without delay. None by default: any size up to `RESNET_MAX_BATCH`.",
    )

    @field_validator("preferred_batches")
    @classmethod
    def _within_max_batch(cls, sizes: tuple[int, ...], others: ValidationInfo) -> tuple[int, ...]:
        most = others.data.get("max_batch")  # absent where it is wrong itself
        if most is not None and max(sizes, default=0) > most:
            raise ValueError(f"{max(sizes)} is larger than RESNET_MAX_BATCH, {most}")
        return tuple(sorted(set(sizes)))


class ProviderSettings(Group):
    """Execution providers; docs/providers.md says when to change these."""

    cache_dir: Annotated[Folder, AfterValidator(_absolute)] | None = Field(
        None,
        description="Folder for compiled models of OpenVINO and engines of TensorRT, kept between starts; none by "
        "default. What lies there is run, so none but the service's user may write to it.",
    )
    gpu_device: int = Field(0, ge=0, le=63, description="The GPU to run on, as CUDA counts them.")
    gpu_memory_bytes: Annotated[int, Field(ge=64 * 2**20)] | None = Field(
        None, description="Most memory that one session's arena takes on the GPU; all of it by default."
    )
    gpu_arena: Literal["next_power_of_two", "same_as_requested"] = Field(
        "next_power_of_two",
        description="How that arena grows: `next_power_of_two` asks seldom, `same_as_requested` wastes nothing.",
    )
    cudnn_search: Literal["exhaustive", "heuristic", "default"] = Field(
        "heuristic",
        description="How CUDA chooses each convolution's algorithm: `exhaustive` tries all, once a batch size.",
    )
    cuda_graphs: bool = Field(
        False,
        description="With CUDA, capture each batch size as a CUDA graph. Every slot then holds the weights once more.",
    )
    tensorrt_workspace_bytes: int = Field(
        2**30, ge=2**20, le=2**40, description="Most scratch memory that TensorRT may plan with."
    )


class LimitSettings(Group):
    """What a request may cost."""

    max_queue: int = Field(
        256,
        ge=1,
        le=1_000_000,
        description="Images a worker holds at most, from acceptance to answer; beyond it requests get 429.",
    )
    deadline_s: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="Seconds from a request's first byte to its answer; beyond it 504.",
    )
    max_body_bytes: int = Field(32 * 2**20, ge=1024, description="Largest request body, in bytes.")
    max_images: int = Field(64, ge=1, le=4096, description="Most images in one multipart request.")

    @property
    def images_per_request(self) -> int:
        """More than the queue holds could never be let in."""
        return min(self.max_images, self.max_queue)


class DecodeSettings(Group):
    """Which images are taken, and how many are decoded at once."""

    image_formats: Annotated[tuple[ImageFormat, ...], BeforeValidator(_split)] = Field(
        ("jpeg", "png", "webp"),
        min_length=1,
        description="Formats taken, of jpeg, png, webp, bmp, gif (first frame) and tiff (first page).",
    )
    max_pixels: int = Field(50_000_000, ge=1024, description="Largest image, width times height.")
    max_jpeg_scans: int = Field(
        100,
        ge=1,
        description="Most scans of a progressive JPEG, which usually has ten: each is a pass over the whole image, so "
        "a small file of thousands takes seconds.",
    )
    decode_threads: Literal["auto"] | Annotated[int, Field(ge=0, le=256)] = Field(
        "auto",
        description="Threads that decode ahead of the slots. 0: each slot decodes what it infers. `auto`: 0 on CPUs, a "
        "worker's cores with an accelerator.",
    )

    def threads(self, cores: int, on_cpu: bool) -> int:
        """What ``decode_threads`` means for a worker with ``cores``: never more than it may be set to."""
        if self.decode_threads != "auto":
            return self.decode_threads
        return 0 if on_cpu else min(256, cores)


class JobSettings(Group):
    """Long work under /v1/jobs."""

    jobs_dir: Annotated[Folder, AfterValidator(_absolute)] | None = Field(
        None,
        description="Folder that keeps jobs: those in it go on after a restart. By default one inside the run folder, "
        "which goes with the service. It holds clients' images, so none but the service's user may read it.",
    )
    jobs_max: int = Field(
        64, ge=0, le=10_000, description="Most jobs held, those that ended included; beyond it 429. 0: no jobs at all."
    )
    jobs_max_bytes: int = Field(
        4 * 2**30,
        ge=2**20,
        description="Most bytes of all jobs on disk. New jobs get 429 beyond three quarters of it; the rest is left to "
        "the results of those that were taken, of which one fails that would need more.",
    )
    jobs_max_body_bytes: int = Field(256 * 2**20, ge=1024, description="Largest request body of a job, in bytes.")
    jobs_max_unpacked_bytes: int = Field(
        2 * 2**30, ge=1024, description="Most bytes that a job's zip archive may unpack to, all entries together."
    )
    jobs_max_images: int = Field(10_000, ge=1, le=1_000_000, description="Most images in one job.")
    jobs_upload_s: float = Field(
        600.0, gt=0, le=86_400, description="Seconds that a job's body may take to come; beyond it 504."
    )
    jobs_ttl_s: float = Field(
        86_400.0, gt=0, le=31_536_000, description="Seconds that a job is kept after it ended; then it is removed."
    )
    jobs_width: Literal["auto"] | Annotated[int, Field(ge=1, le=4096)] = Field(
        "auto",
        description="Images of a job that a worker has in work at once, which is what requests may have to wait for. "
        "`auto`: two for every slot on CPUs, two full batches with an accelerator.",
    )

    @property
    def inputs_max_bytes(self) -> int:
        """Bytes on disk beyond which nothing more is taken in."""
        return self.jobs_max_bytes * 3 // 4

    @property
    def body_max_bytes(self) -> int:
        """More could never be taken in."""
        return min(self.jobs_max_body_bytes, self.inputs_max_bytes)


class CanarySettings(Group):
    """How a model's `canary` alias is tried; docs/models.md says how."""

    canary_share: float = Field(
        0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Share of the requests without a version that a model's `canary` gets, of 0 to 1.",
    )
    canary_mode: Literal["split", "shadow"] = Field(
        "split",
        description="`split`: the canary answers its share. `shadow`: the stable version answers all, and the canary "
        "computes copies of its share, whose answers are compared and thrown away.",
    )
    canary_in_flight: int = Field(
        2, ge=1, le=256, description="Copies that a worker computes at the same time at most; others are dropped."
    )


def _long_key(key: SecretStr) -> SecretStr:
    value = key.get_secret_value()
    if not (16 <= len(value) <= 1024 and value.isascii() and value.isprintable() and " " not in value):
        raise ValueError("must be 16 to 1024 printable ASCII characters without blanks")
    return key


class ServerSettings(Group):
    """The processes around it all."""

    admin_key: Annotated[SecretStr, AfterValidator(_long_key)] | None = Field(
        None,
        description="Key of at least 16 printable ASCII characters that the routes below `/v2/repository` ask for, as "
        "in `Authorization: Bearer KEY`; without one they are closed.",
    )

    workers: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = Field(
        "auto", description="Processes that serve, which share the cores. `auto`: one for every 8 cores."
    )
    run_dir: Annotated[Folder, AfterValidator(_absolute)] | None = Field(
        None,
        description="Folder that the workers share for metrics. By default a temporary one, made at start and "
        "removed at the end.",
    )
    grpc_port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None, description="Port of the gRPC service (docs/inference-protocol.md); off by default."
    )
    grpc_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address that the gRPC service listens on; `0.0.0.0` lets other machines in.",
    )
