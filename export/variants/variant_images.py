"""Which images calibrate a variant, which find its worst layers, and which judge it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from export.errors import ExportError
from export.images.image_sets import ImageSet
from export.images.subsets import NamedImages, Source
from export.variants.candidates import Rules
from model_store.stored_model import StoredModel

_PROBE_IMAGES: Final = 16
_FEWEST: Final = 100  # left over from the calibration, to tell the agreement


@dataclass(frozen=True)
class Calibration:
    """Images that the ranges of the feature maps are taken from, and a few that tell the worst layers."""

    images: ImageSet
    probe: ImageSet


@dataclass(frozen=True)
class VariantImages:
    """Which images do what, and what the reader of the report should know of them.

    calibration -- None where none were given: then nothing can be converted.
    """

    calibration: Calibration | None
    validation: NamedImages
    notes: tuple[str, ...]


def choose_images(
    stored: StoredModel, calibrate: Path | None, count: int, validate: Path | None, rules: Rules
) -> VariantImages:
    """``count`` images of ``calibrate`` to calibrate with, evenly spread, and those of ``validate`` for the gate.

    Without ``validate`` the gate takes the rest of ``calibrate``; ``ExportError`` where there is neither.
    """
    preprocessing, labels = stored.manifest.preprocessing, stored.labels()
    calibration, validation = None, None
    notes = []
    if calibrate is not None:
        source = Source.open(calibrate, preprocessing, labels)
        chosen = source.spread(count)
        calibration = Calibration(chosen.images, source.spread(_PROBE_IMAGES).images)
        if validate is None:
            validation, told = _rest(source, chosen)
            notes.append(told)
    if validate is not None:
        validation = Source.open(validate, preprocessing, labels).validation()
        if validation.images.note:
            notes.append(f"{validation.images.name}: no accuracy is measured: {validation.images.note}")
    if validation is None:
        raise ExportError("no images to compare with fp32 on: name some with --validate")
    if note := _coarse(validation.images, rules):
        notes.append(note)
    return VariantImages(calibration, validation, tuple(notes))


def _rest(source: Source, used: NamedImages) -> tuple[NamedImages, str]:
    """What the calibration left over, where that is enough, else everything; and the note that says which."""
    if (rest := source.without(used.files)) and rest.images.count >= _FEWEST:
        return rest, "no --validate: the gate judges agreement, on images of --calibrate that were not used for it"
    return (
        source.unlabelled(),
        "no --validate, and too few images to set some apart: the gate sees those of the calibration",
    )


def _coarse(images: ImageSet, rules: Rules) -> str | None:
    """A word of caution where a single image decides."""
    thresholds = rules.thresholds
    allowed = 1 - thresholds.min_agreement if images.targets is None else thresholds.max_accuracy_drop
    if rules.off or not 0 < allowed * images.count < 1:
        return None
    return f"with {images.count} images, one changed answer is more than the gate allows: take more to know better"
