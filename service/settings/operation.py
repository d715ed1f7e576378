"""The processes, and what they tell of themselves."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    ValidationInfo,
    field_validator,
)

from service.settings.values import (
    Folder,
    Group,
    absolute,
)


class DriftSettings(Group):
    """Whether images change, for models with a reference; docs/drift.md says what is measured."""

    drift_window: int = Field(
        1000,
        ge=0,
        le=1_000_000,
        description="Images of a model version that a worker compares with the version's reference: the last ones. "
        "0: none are.",
    )
    drift_min_images: int = Field(
        200, ge=1, le=1_000_000, description="Fewer images than this tell nothing, and no distance is shown."
    )

    @field_validator("drift_min_images")
    @classmethod
    def _within_window(cls, least: int, others: ValidationInfo) -> int:
        window = others.data.get("drift_window")  # absent where it is wrong itself
        if window and least > window:
            raise ValueError(f"{least} is larger than RESNET_DRIFT_WINDOW, {window}")
        return least


class LogSettings(Group):
    """What is logged; docs/operations.md says what a line has."""

    log_requests: Literal["off", "errors", "sampled", "all"] = Field(
        "errors",
        description="Requests that get a log line. `errors`: those that failed (5xx) or were refused for want of room "
        "(429); `sampled`: any; of both at most `RESNET_LOG_SAMPLE_PER_S`. `all`: every one; `off`: none.",
    )
    log_sample_per_s: float = Field(
        10.0,
        gt=0,
        le=100_000,
        allow_inf_nan=False,
        description="Most lines for requests that a worker writes in a second; the next one tells how many were left "
        "out.",
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto",
        description="`json`: an object a line; `text`: for people. `auto`: text in colours where stderr is a terminal, "
        "else JSON.",
    )


class ServerSettings(Group):
    """The processes around it all."""

    workers: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = Field(
        "auto",
        description="Processes that serve, which share the cores. `auto`: one for every 8 cores, or 4 where a GPU "
        "computes. A small network gains from one for every one or two: docs/performance.md.",
    )
    run_dir: Annotated[Folder, AfterValidator(absolute)] | None = Field(
        None,
        description="Folder that the workers share for metrics. By default a temporary one, made at start and "
        "removed at the end.",
    )
    drain_s: float = Field(
        5.0,
        ge=0,
        le=600,
        allow_inf_nan=False,
        description="Seconds after SIGTERM in which requests are still taken while `/readyz` says 503, so that whoever "
        "sends them here goes elsewhere first; then new connections are refused. More than a balancer takes to notice.",
    )
    stop_s: float | None = Field(
        None,
        gt=0,
        le=7200,
        allow_inf_nan=False,
        description="Seconds after SIGTERM at which workers end, whatever is not answered by then; an orchestrator's "
        "grace period must be longer. By default `RESNET_DRAIN_S` + `RESNET_DEADLINE_S` + 10.",
    )
    grpc_port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None, description="Port of the gRPC service (docs/inference-protocol.md); off by default."
    )
    grpc_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address that the gRPC service listens on; `0.0.0.0` lets other machines in.",
    )
    metrics_port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None,
        description="Port for `/metrics` alone, which the service's own port then has no more; none by default.",
    )
    metrics_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address that the metrics' port listens on; `0.0.0.0` lets other machines in.",
    )

    @field_validator("metrics_port")
    @classmethod
    def _not_the_grpc_port(cls, port: int | None, others: ValidationInfo) -> int | None:
        # Both are shared by the workers, so the system would let them share it with each other.
        if port is not None and port == others.data.get("grpc_port"):
            raise ValueError("RESNET_GRPC_PORT is the same")
        return port


class TraceSettings(Group):
    """Traces; docs/tracing.md says what they hold and what sets them up."""

    traces: Literal["off", "otlp"] = Field(
        "off",
        description="`otlp`: spans of requests and batches are sent to the collector that "
        "`OTEL_EXPORTER_OTLP_ENDPOINT` names; needs the extra `traces`.",
    )
