"""A request to export, with every question answered before the slow part starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from pydantic import JsonValue
from rich.console import Console

from export import train
from export.checkpoints.checkpoint import Checkpoint, read_checkpoint
from export.checkpoints.fitting import choose, load_network
from export.checkpoints.labels import Labels, default_labels, origin_labels, read_labels
from export.checkpoints.origins import Description
from export.checkpoints.training import Training
from export.errors import ExportError
from export.graphs.contract import Maps
from export.graphs.foreign_file import OnnxFile, read_onnx
from export.images.image_sets import ImageSet, real_images, seeded_images
from export.networks.architecture import AnySpec, spec_fields
from export.networks.build import parameter_count
from export.networks.classifier import Classifier
from export.networks.specs import get_spec
from export.preprocessing import InputOptions, decide, in_words, usual_input
from export.reports.model_card import ONNX, CardNotes
from model_store.manifest import Preprocessing, Source, check_version
from model_store.store import ModelStore, StoreError

_ANY_SIZE: Final = 224
# Networks for images so small take them whole.
_WHOLE_UP_TO: Final = 64


@dataclass(frozen=True)
class Request:
    """One export.

    checkpoint -- a file or folder with weights, or an ONNX file where ``onnx`` is set.
    arch       -- None for what the origin says or the weights fit.
    version    -- None for the next free one.
    origin     -- one of ``export.checkpoints.origins.NAMES``; None to recognise it.
    weights    -- key of the state dict in a checkpoint, or prefix of its names.
    about      -- what is known of published weights; goes before what the file says.
    reference  -- how published weights are called; the manifest keeps it in the place of a file's name.
    maps       -- of how many classes the graph gives activation maps.
    """

    checkpoint: Path
    name: str
    store: Path | str
    arch: str | None = None
    version: str | None = None
    labels: Path | None = None
    verify_images: Path | None = None
    input: InputOptions = field(default_factory=InputOptions)
    notes: CardNotes = field(default_factory=CardNotes)
    onnx: bool = False
    origin: str | None = None
    weights: str | None = None
    about: Description | None = None
    reference: str | None = None
    maps: Maps = None


@dataclass(frozen=True)
class Job:
    """A request with every question answered.

    network -- with its weights, or the ONNX file that is to be wrapped.
    """

    version: str
    arch: str
    spec: Mapping[str, JsonValue]
    parameters: int
    network: Classifier | OnnxFile
    source: Source
    training: Training | None
    labels: Labels
    preprocessing: Preprocessing
    images: ImageSet
    maps: Maps


@dataclass(frozen=True)
class _Network:
    """What is known of a network before labels and preprocessing are settled."""

    arch: str
    spec: Mapping[str, JsonValue]
    parameters: int
    network: Classifier | OnnxFile
    source: Source
    classes: int
    about: Description
    usual: InputOptions
    cifar: bool
    training: Training | None = None
    notes: tuple[str, ...] = ()


def prepare(request: Request, store: ModelStore, console: Console) -> Job:
    """Everything that ``request`` needs; ``ExportError`` or ``StoreError`` where it cannot be met."""
    version = _version(request, store)
    if request.arch is not None:
        get_spec(request.arch)
    found = _from_onnx(request) if request.onnx else _from_checkpoint(request)
    labels = _labels(request, found)
    preprocessing = decide(request.input, found.about.input or InputOptions(), found.usual)
    if request.verify_images:
        images = real_images(request.verify_images, preprocessing, labels.names)
    else:
        images = seeded_images(preprocessing)
    notes = [f"origin: {found.source.origin}", *found.notes]
    notes.append(f"input: {in_words(preprocessing)}; from {_input_source(request, found.about)}")
    for note in (*notes, *_notes(labels, images)):
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    return Job(
        version=version,
        arch=found.arch,
        spec=found.spec,
        parameters=found.parameters,
        network=found.network,
        source=found.source,
        training=found.training,
        labels=labels,
        preprocessing=preprocessing,
        images=images,
        maps=request.maps,
    )


def _version(request: Request, store: ModelStore) -> str:
    """The version to publish; ``StoreError`` where the name or version is none, or is taken."""
    taken = store.versions(request.name)
    if request.version is None:
        return store.next_version(request.name)
    try:
        check_version(request.version)
    except ValueError as error:
        raise StoreError(str(error)) from error
    if request.version in taken:
        raise StoreError(f"{request.name} version {request.version} is in {store} already; versions never change")
    return request.version


def _from_checkpoint(request: Request) -> _Network:
    checkpoint = read_checkpoint(request.checkpoint, request.origin, request.weights)
    if request.about:
        checkpoint = replace(checkpoint, about=request.about)
    choice = choose(checkpoint, request.arch)
    net = load_network(checkpoint, choice.name, choice.spec)
    return _Network(
        arch=choice.name,
        spec=spec_fields(choice.spec),
        parameters=parameter_count(net),
        network=net,
        source=Source(
            origin=checkpoint.origin, file=request.reference or checkpoint.path.name, sha256=checkpoint.sha256
        ),
        classes=checkpoint.classes,
        about=_with_training(checkpoint, choice.spec),
        usual=_usual(choice.spec),
        cifar=choice.spec.cifar,
        training=checkpoint.training,
        notes=(*choice.notes, *checkpoint.notes, *_left_out(checkpoint)),
    )


def _usual(spec: AnySpec) -> InputOptions:
    return usual_input(spec.image_size, whole=spec.cifar)


def _with_training(checkpoint: Checkpoint, spec: AnySpec) -> Description:
    """What the origin says; ``export.train`` keeps labels, and takes whole images of the network's size."""
    if checkpoint.training is None:
        return checkpoint.about
    return Description(
        labels=checkpoint.training.labels,
        input=InputOptions(
            size=spec.image_size,
            resize=spec.image_size,
            interpolation="bilinear",
            mean=train.MEAN,
            std=train.STD,
        ),
        source="the checkpoint",
    )


def _left_out(checkpoint: Checkpoint) -> list[str]:
    training = checkpoint.training
    if training and training.epoch != training.recipe.get("epochs"):
        return [f"training is not finished: {training.epoch} epochs so far"]
    if checkpoint.aside and not training:
        return [f"in the checkpoint but not exported: {', '.join(checkpoint.aside)}"]
    return []


def _from_onnx(request: Request) -> _Network:
    for option, value in (("--arch", request.arch), ("--origin", request.origin), ("--weights", request.weights)):
        if value is not None:
            raise ExportError(f"{option} is for checkpoints; an ONNX file is taken as it is")
    file = read_onnx(request.checkpoint)
    if file.size and request.input.size not in (None, file.size):
        raise ExportError(f"{file.path}: its input is {file.size}x{file.size}; --size {request.input.size} is not")
    size = file.size or _ANY_SIZE
    return _Network(
        arch=ONNX,
        spec={},
        parameters=file.parameters,
        network=file,
        source=Source(origin=ONNX, file=file.path.name, sha256=file.sha256),
        classes=file.classes,
        about=Description(),
        usual=usual_input(size, whole=size <= _WHOLE_UP_TO),
        cifar=False,
    )


def _labels(request: Request, found: _Network) -> Labels:
    if request.labels:
        return read_labels(request.labels, found.classes)
    if found.about.labels:
        where = f"{request.checkpoint}: {found.about.source}"
        return origin_labels(found.about.labels, found.classes, where, found.about.source)
    return default_labels(found.classes, found.cifar)


def _input_source(request: Request, about: Description) -> str:
    """Who said how images are prepared."""
    sides = ["the command"] if request.input != InputOptions() else []
    sides.append((about.input_source or about.source) if about.input else "what is usual for the network")
    return " and ".join(sides)


def _notes(labels: Labels, images: ImageSet) -> list[str]:
    """What the caller may want to know before anything is published."""
    notes = [f"labels: {labels.source}"]
    if labels.repeated:
        notes.append(f"labels of more than one class: {', '.join(labels.repeated)}")
    if images.note:
        notes.append(f"{images.name}: no accuracy is measured: {images.note}")
    return notes
