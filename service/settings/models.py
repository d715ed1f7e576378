"""Which models are served, how they run, and on what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
)

from model_store.locations import mirror_folder
from model_store.manifest import Precision
from model_store.store import EMBEDDED_MODELS
from service.settings.values import (
    Folder,
    Group,
    Location,
    Provider,
    absolute,
    checked_policy,
    model_references,
    split,
)


class StoreSettings(Group):
    """Which models are served."""

    model_store: Location = Field(
        EMBEDDED_MODELS,
        description="Folder of models, laid out as NAME/VERSION, or URL of one: `s3://`, `gs://`, `az://`, `https://`, "
        "`file://` (docs/stores.md).",
    )
    store_cache: Annotated[Folder, AfterValidator(absolute)] | None = Field(
        None,
        description="Folder that keeps what was fetched from a store at a URL; `~/.cache/resnet-serving/stores` by "
        "default. What lies there is run, so none but the service's user may write to it.",
    )
    models: Annotated[tuple[tuple[str, str | None], ...], BeforeValidator(model_references)] = Field(
        (),
        description="Models to serve: `name` (the versions that `RESNET_VERSION_POLICY` says) or `name@version` (that "
        "one alone, by number or alias), separated by commas; `*` for all. "
        "The first is the one that answers where a request names none.",
    )
    version_policy: Annotated[str, AfterValidator(checked_policy)] = Field(
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
    profiles: Literal["auto", "off"] | Annotated[Folder, AfterValidator(absolute)] = Field(
        "auto",
        description="Where profiles of `python -m service tune` are looked for. `auto`: beside each model's versions; "
        "`off`: nowhere, none is used; or a folder.",
    )

    @property
    def folder(self) -> Path:
        """Where the models are for this process: the store itself, or its mirror."""
        if isinstance(self.model_store, Path):
            return self.model_store
        return mirror_folder(self.model_store, self.store_cache)


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
        "time; while such images come, the model is held in memory twice.",
    )
    max_batch: int = Field(8, ge=1, le=256, description="Most images in one batch; every size is run before ready.")
    max_delay_s: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Seconds an image may wait for others while a slot is free. 0 suits CPUs; accelerators may gain.",
    )
    preferred_batches: Annotated[tuple[Annotated[int, Field(ge=1, le=256)], ...], BeforeValidator(split)] = Field(
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

    cache_dir: Annotated[Folder, AfterValidator(absolute)] | None = Field(
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
        True,
        description="With CUDA, capture each batch size as a CUDA graph. Every slot then holds the weights once more. "
        "Without, every change of batch size is slow.",
    )
    tensorrt_workspace_bytes: int = Field(
        2**30, ge=2**20, le=2**40, description="Most scratch memory that TensorRT may plan with."
    )


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
