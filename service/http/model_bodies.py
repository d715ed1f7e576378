"""What the routes of ``/v1/models`` answer with: schemas, and how they are made of what is served."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from model_store.manifest import Variant
from model_store.reference import Feature
from model_store.reports import Calibration
from service.inference.drift import Drift
from service.models.served import Served
from service.models.shadow import Comparison
from service.settings import CanarySettings


class Size(BaseModel):
    """In pixels."""

    height: int
    width: int


class Maps(Size):
    """The class activation maps of an image: of the `k` best classes."""

    k: int


class OutputsBody(BaseModel):
    """What the network gives: `embedding` is its length, null where there is none, as with `cam`."""

    classes: int
    embedding: int | None
    cam: Maps | None


class ReportBody(BaseModel):
    """A comparison that admitted a variant: with PyTorch (`parity`), or with fp32 (a gate by its rule)."""

    rule: str
    passed: bool
    provider: str | None = Field(description="The execution provider it was compared on; null for parity.")
    images: int
    image_source: str
    top1_agreement: float
    max_absolute_error: float
    accuracy: float | None = Field(description="Of the variant on labelled images, where there were some.")
    baseline_accuracy: float | None = Field(description="Of what it was compared with.")


class VariantBody(BaseModel):
    """The network in one arithmetic."""

    precision: str
    gated: bool
    bytes: int
    sha256: str
    in_use: bool
    reports: list[ReportBody]


class DriftBody(BaseModel):
    """What the model was meant for, and how far the last images are from it, in the worker that answers."""

    reference_images: int
    reference_source: str
    reference_created: datetime
    images: int = Field(description="In the window.")
    psi: dict[Feature, float] | None = Field(
        description="Population stability index by what was counted, less what chance makes of it; null where the "
        "window has too few images."
    )
    embedding_distance: float | None = Field(description="In standard deviations; null as above, or without one.")


class VersionBody(BaseModel):
    """A version that is served: what it is, and on what it runs."""

    name: str
    version: str
    default: bool = Field(description="Whether it answers where a request names no model.")
    aliases: list[str]
    architecture: str
    created: datetime
    classes: int
    labels: list[str]
    input: Size
    outputs: OutputsBody
    provider: str
    precision: str
    gated: bool = Field(description="Whether the variant in use passed its gate.")
    passed_over: list[str] = Field(description="Why better providers are not in use.")
    sha256: str
    variants: list[VariantBody]
    calibration: Calibration | None
    drift: DriftBody | None = Field(description="Null for a model without a reference, or where drift is off.")
    profile: str | None = Field(description="Date of the tuning profile in use.")


class NamedVersion(BaseModel):
    name: str
    version: str


class FailureBody(BaseModel):
    """A version that cannot be loaded; it is tried again when its files change."""

    version: str
    reason: str


class NamedFailure(FailureBody):
    name: str


class ModelsBody(BaseModel):
    models: list[VersionBody]
    loading: list[NamedVersion]
    failed: list[NamedFailure]


class ModelBody(BaseModel):
    """One model: what is served of it, and what the store has."""

    name: str
    default: bool
    unloaded: bool = Field(description="Whether an administrator took it out.")
    aliases: dict[str, str] = Field(description="Versions by alias, as they are answered now.")
    versions: list[VersionBody]
    loading: list[str]
    failed: list[FailureBody]
    store: list[str] = Field(description="All versions in the store.")
    problem: str | None = Field(description="Why the store's state of it cannot be followed; what is served stays.")


class Latency(BaseModel):
    """In seconds, of the last images; null where there were none."""

    p50: float | None
    p99: float | None


class Latencies(BaseModel):
    images: int = Field(description="Images in the window.")
    stable: Latency
    canary: Latency


class ShadowBody(BaseModel):
    """A canary beside the stable version, on the images that both computed."""

    model: str
    mode: Literal["split", "shadow"]
    share: float
    stable: str
    canary: str
    since: datetime | None
    compared: int
    agreed: int = Field(description="Images of which both have the same best class, by label.")
    agreement: float | None
    probability_difference: float | None = Field(
        description="Mean of |p - q|: the stable version's probability of its best class and the canary's of that."
    )
    dropped: int = Field(description="Copies that were not made, as no slot was idle or enough were under way.")
    failed: int = Field(description="Copies that the canary could not answer.")
    seconds: Latencies


def version_body(served: Served, *, default: bool, aliases: Sequence[str]) -> VersionBody:
    """What is told of a version that is served."""
    manifest, session = served.pipeline.stored.manifest, served.pipeline.session
    spec, outputs = manifest.preprocessing, manifest.outputs
    return VersionBody(
        name=manifest.name,
        version=manifest.version,
        default=default,
        aliases=list(aliases),
        architecture=manifest.architecture.name,
        created=manifest.created,
        classes=outputs.classes,
        labels=list(served.pipeline.labels),
        input=Size(height=spec.height, width=spec.width),
        outputs=OutputsBody(
            classes=outputs.classes,
            embedding=outputs.embedding,
            cam=None if outputs.cam is None else Maps(**outputs.cam.model_dump()),
        ),
        provider=session.provider,
        precision=session.variant.precision,
        gated=session.variant.gated,
        passed_over=list(session.passed_over),
        sha256=session.variant.sha256,
        variants=[_variant(one, in_use=one == session.variant) for one in manifest.variants],
        calibration=manifest.calibration,
        drift=_drift(served.pipeline.drift),
        profile=served.profile.date if served.profile else None,
    )


def _drift(drift: Drift | None) -> DriftBody | None:
    if drift is None:
        return None
    reference, found = drift.reference, drift.found
    return DriftBody(
        reference_images=reference.images,
        reference_source=reference.image_source,
        reference_created=reference.created,
        images=found.images,
        psi=None if found.psi is None else dict(found.psi),
        embedding_distance=found.embedding,
    )


def _variant(variant: Variant, *, in_use: bool) -> VariantBody:
    reports = []
    if (parity := variant.parity) is not None:
        accuracy = parity.accuracy
        reports.append(
            ReportBody(
                rule="parity",
                passed=parity.passed,
                provider=None,
                images=parity.images,
                image_source=parity.image_source,
                top1_agreement=parity.top1_agreement,
                max_absolute_error=parity.max_absolute_error,
                accuracy=accuracy and accuracy.exported,
                baseline_accuracy=accuracy and accuracy.pytorch,
            )
        )
    if (gate := variant.gate) is not None:
        reports.append(ReportBody(**gate.model_dump(include=set(ReportBody.model_fields))))
    return VariantBody(
        precision=variant.precision,
        gated=variant.gated,
        bytes=variant.bytes,
        sha256=variant.sha256,
        in_use=in_use,
        reports=reports,
    )


def shadow_body(stable: Served, canary: Served, settings: CanarySettings, seen: Comparison | None) -> ShadowBody:
    """What is told of a comparison; of none, where nothing was compared yet."""
    if seen is not None and (seen.stable is not stable or seen.canary is not canary):
        seen = None
    compared = 0 if seen is None else seen.compared
    seconds = [] if seen is None else list(seen.seconds)
    return ShadowBody(
        model=stable.name,
        mode=settings.canary_mode,
        share=settings.canary_share,
        stable=stable.version,
        canary=canary.version,
        since=None if seen is None else seen.since,
        compared=compared,
        agreed=0 if seen is None else seen.agreed,
        agreement=seen.agreed / compared if seen and compared else None,
        probability_difference=seen.difference / compared if seen and compared else None,
        dropped=0 if seen is None else seen.dropped,
        failed=0 if seen is None else seen.failed,
        seconds=Latencies(
            images=len(seconds),
            stable=_latency([one for one, _ in seconds]),
            canary=_latency([one for _, one in seconds]),
        ),
    )


def _latency(seconds: list[float]) -> Latency:
    ordered = sorted(seconds)
    p50, p99 = (_rank(ordered, share) for share in (0.5, 0.99))
    return Latency(p50=p50, p99=p99)


def _rank(ordered: Sequence[float], share: float) -> float | None:
    """By the nearest rank: a latency that was seen."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None
