"""What can be read of the graph's outputs for one image, as the API answers it.

A ``Reading`` is settled before any image is read, so that what cannot be had is refused at once; its ``read`` then
makes an image's result in the slot's thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast

import numpy as np

from model_store.transforms import crop_box
from service.errors import BadRequest, MissingOutput, NoHeatmap
from service.inference.compute import Reader
from service.inference.heatmap import Heatmap
from service.inference.outputs import OutputName, Outputs
from service.inference.pipeline import LOGITS, Pipeline
from service.inference.postprocess import Floats, energy

DEFAULT_TOP_K: Final = 5

Result = dict[str, Any]
"""One image's part of an answer; arrays are numpy's."""


class Reading(NamedTuple):
    """What is made of each image's outputs, and which of them it takes."""

    read: Reader[Any]
    outputs: tuple[OutputName, ...] = LOGITS


def joined(parts: Mapping[str, Reading]) -> Reading:
    """All ``parts`` in one result, each under its name."""
    if len(parts) == 1:  # most requests want predictions alone
        ((name, only),) = parts.items()
        return Reading(lambda outputs: {name: only.read(outputs)}, only.outputs)
    wanted = dict.fromkeys(output for part in parts.values() for output in part.outputs)
    readers = {name: part.read for name, part in parts.items()}
    return Reading(lambda outputs: {name: read(outputs) for name, read in readers.items()}, tuple(wanted))


def predictions(pipeline: Pipeline, top_k: int | None) -> Reading:
    """The ``top_k`` best classes; by default five, or all where there are fewer."""
    classes = len(pipeline.labels)
    if top_k is not None and top_k > classes:
        raise BadRequest(f"top_k: must be a whole number from 1 to {classes}")
    return Reading(pipeline.top(min(DEFAULT_TOP_K, classes) if top_k is None else top_k))


def embedding(pipeline: Pipeline, normalize: bool = False) -> Reading:
    """The pooled features: float32 ``[D]``; normalised, of Euclidean length 1 (all zeros stay that)."""
    if pipeline.stored.manifest.outputs.embedding is None:
        raise MissingOutput(
            f"model {pipeline.stored.manifest.name!r} has no embedding: its last layer is no linear one"
        )

    def read(outputs: Outputs) -> Floats:
        found = cast("Floats", outputs.embedding)
        length = np.linalg.norm(found) if normalize else 1
        return found / length if length else found

    return Reading(read, ("logits", "embedding"))


def heatmap(pipeline: Pipeline, wanted: str | None) -> Reading:
    """The ``Heatmap`` of the class ``wanted``, a label or an index; by default of the best one."""
    manifest, labels = pipeline.stored.manifest, pipeline.labels
    cam = manifest.outputs.cam
    if cam is None:
        raise MissingOutput(
            f"model {manifest.name!r} has no heatmaps: its last layers are no average over the image and a linear layer"
        )
    chosen = None if wanted is None else class_index(wanted, labels)

    def read(outputs: Outputs) -> Heatmap:
        order = np.argsort(-outputs.logits, kind="stable")[: cam.k].tolist()
        index = order[0] if chosen is None else chosen
        if index not in order:
            best = ", ".join(labels[i][:64] for i in order)
            raise NoHeatmap(
                f"there are maps of the {cam.k} best classes of an image alone, and class {index} is not among them; "
                f"they are {best}"
            )
        box = crop_box(*outputs.size, manifest.preprocessing)
        grid = cast("Floats", outputs.cam)[order.index(index)]
        return Heatmap(labels[index], index, float(outputs.logits[index]), grid, box, outputs.size)

    return Reading(read, ("logits", "cam"))


def as_json(part: Reading) -> Reading:
    """A ``heatmap`` as its JSON."""
    return Reading(lambda outputs: part.read(outputs).as_json(), part.outputs)


def class_index(text: str, labels: tuple[str, ...]) -> int:
    """The class that ``text`` names: by its label, or else by its index."""
    found = [index for index, label in enumerate(labels) if label == text]
    if len(found) == 1:
        return found[0]
    if found:
        raise BadRequest(f"class: {len(found)} classes have this label; give the index, one of {found}")
    if text.isascii() and text.isdigit() and len(text) <= 6 and int(text) < len(labels):
        return int(text)
    raise BadRequest(f"class: {text[:64]!r} is neither a label nor an index from 0 to {len(labels) - 1}")


def scores(pipeline: Pipeline) -> Reading:
    """How sure the network is of its own ground, beyond probabilities, which add up to 1 on any image."""
    calibration = pipeline.stored.manifest.calibration

    def read(outputs: Outputs) -> Result:
        score = energy(outputs.logits)
        return {
            "max_logit": float(outputs.logits.max()),
            "energy": score,
            "out_of_distribution": None if calibration is None else score < calibration.energy,
        }

    return Reading(read)


def timings(outputs: Outputs) -> Result:
    """Seconds of each stage."""
    measured = outputs.timings
    return {"decode": measured.decode_s, "queue": measured.queue_s, "infer": measured.infer_s}


def abstaining(reading: Reading, pipeline: Pipeline, min_probability: float) -> Reading:
    """``reading``, without predictions where the best class is less probable than ``min_probability``."""

    def read(outputs: Outputs) -> Result:
        result: Result = reading.read(outputs)
        abstained = float(pipeline.probabilities(outputs.logits).max()) < min_probability
        if abstained and "predictions" in result:
            result["predictions"] = []
        return {**result, "abstained": abstained}

    return Reading(read, reading.outputs)
