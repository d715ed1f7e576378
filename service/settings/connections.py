"""What clients may do with their connections before there is a request to bound."""

from __future__ import annotations

from pydantic import Field

from service.settings.values import Group


class ConnectionSettings(Group):
    """How long a slow client is waited for, and how many there may be."""

    max_connections: int = Field(
        2000,
        ge=1,
        le=1_000_000,
        description="Connections a worker keeps open at most. Beyond it those that wait for a request make room, the "
        "longest first; where all are in use, new ones get 503, but for the probes. Over gRPC it keeps as many again, "
        "and closes those beyond.",
    )
    header_timeout_s: float = Field(
        10.0,
        gt=0,
        le=3600,
        allow_inf_nan=False,
        description="Seconds from a request's first byte, or a connection's start, to the end of its headers; beyond "
        "it 408, and the connection is closed. Over gRPC, to the end of a TLS handshake.",
    )
    body_idle_s: float = Field(
        10.0,
        gt=0,
        le=3600,
        allow_inf_nan=False,
        description="Seconds in which nothing more of a request's body comes; beyond it 408. All of it is bounded by "
        "`RESNET_DEADLINE_S`, a job's by `RESNET_JOBS_UPLOAD_S`. What still comes of a body that was answered already "
        "is dropped for as long, then the connection is closed.",
    )
    keep_alive_s: float = Field(
        75.0,
        gt=0,
        le=3600,
        allow_inf_nan=False,
        description="Seconds a connection, or a connection or stream over gRPC, stays open without a request. Set it "
        "longer than your load balancer's (often 60), or the balancer may use a connection that is being closed.",
    )
