"""One export from start to end: checkpoint, network, graph, proof, published version.

Everything that can be wrong is looked at before the slow part starts, and the
store sees a whole version or nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from rich.console import Console

from export import train
from export.checkpoints import Checkpoint, fitting_architectures, load_network, read_checkpoint
from export.errors import ExportError
from export.image_sets import ImageSet, real_images, seeded_images
from export.labels import Labels, default_labels, read_labels, trained_labels
from export.model_card import CardNotes, render_card
from export.onnx_graph import Graph, export_graph
from export.parity import ParityError, Verdict, measure, onnx_runner, torch_reference
from export.resnet import ResNet, parameter_count
from export.specs import Spec, get_spec
from model_store.manifest import (
    Architecture,
    Interpolation,
    Manifest,
    Preprocessing,
    Source,
    Triple,
    Variant,
    check_version,
)
from model_store.store import LABELS_FILE, ModelStore, StoredModel, StoreError, describe_file

# torchvision's, of 0..1 values; the CIFAR checkpoints in circulation are trained with them too.
IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
CARD_FILE: Final = "README.md"
FP32_FILE: Final = "model.fp32.onnx"


@dataclass(frozen=True)
class InputOptions:
    """What the caller says of the preprocessing; None leaves it to the architecture and the checkpoint."""

    size: int | None = None
    resize: int | None = None
    interpolation: Interpolation = "bilinear"
    mean: Triple | None = None
    std: Triple | None = None


@dataclass(frozen=True)
class Request:
    """One export. ``arch`` may be None for a checkpoint of ``export.train``, ``version`` for the next free one."""

    checkpoint: Path
    name: str
    store: Path
    arch: str | None = None
    version: str | None = None
    labels: Path | None = None
    verify_images: Path | None = None
    input: InputOptions = field(default_factory=InputOptions)
    notes: CardNotes = field(default_factory=CardNotes)


@dataclass(frozen=True)
class _Job:
    """A request with every question answered."""

    version: str
    arch: str
    spec: Spec
    checkpoint: Checkpoint
    net: ResNet
    labels: Labels
    preprocessing: Preprocessing
    images: ImageSet


def convert(request: Request, console: Console) -> StoredModel:
    """Export, verify and publish; what is worth knowing on the way goes to ``console``.

    ``ExportError`` or ``StoreError`` where nothing was published.
    """
    store = ModelStore(request.store)
    job = _prepare(request, store, console)
    console.print(f"exporting {job.arch} with {len(job.labels.names)} classes", markup=False, highlight=False)
    graph = export_graph(job.net, job.preprocessing)
    with store.staging() as staged:
        file = staged / FP32_FILE
        graph.save(file)
        verdict = measure(
            job.images,
            torch_reference(job.net, job.preprocessing),
            onnx_runner(file),
            job.labels.names,
            console,
        )
        if verdict.reasons:
            raise ParityError(f"not published, the ONNX file is not PyTorch's equal: {'; '.join(verdict.reasons)}")
        (staged / LABELS_FILE).write_text(job.labels.text(), encoding="utf-8", newline="\n")
        manifest = _manifest(request.name, job, graph, verdict, staged)
        card = render_card(manifest, job.labels.names, job.checkpoint.training, request.notes)
        (staged / CARD_FILE).write_text(card, encoding="utf-8", newline="\n")
        return store.publish(staged, manifest)


def _prepare(request: Request, store: ModelStore, console: Console) -> _Job:
    version = _version(request, store)
    if request.arch is not None:
        get_spec(request.arch)
    checkpoint = read_checkpoint(request.checkpoint)
    arch = request.arch or _guess_arch(checkpoint)
    spec = get_spec(arch)
    net = load_network(checkpoint, arch)
    labels = _labels(request, checkpoint, spec)
    preprocessing = _preprocessing(request.input, spec, ours=checkpoint.training is not None)
    if request.verify_images:
        images = real_images(request.verify_images, preprocessing, labels.names)
    else:
        images = seeded_images(preprocessing)
    for note in _notes(checkpoint, labels, images):
        console.print(f"note: {note}", markup=False, highlight=False)
    return _Job(version, arch, spec, checkpoint, net, labels, preprocessing, images)


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
        raise StoreError(f"{request.name} version {request.version} is in {store.root} already; versions never change")
    return request.version


def _guess_arch(checkpoint: Checkpoint) -> str:
    if checkpoint.training:
        return checkpoint.training.arch
    fitting = fitting_architectures(checkpoint)
    hint = f"it fits --arch {' or '.join(fitting)}" if fitting else "no known architecture fits"
    raise ExportError(f"{checkpoint.path}: name the architecture with --arch; {hint}")


def _labels(request: Request, checkpoint: Checkpoint, spec: Spec) -> Labels:
    if request.labels:
        return read_labels(request.labels, checkpoint.classes)
    if checkpoint.training:
        return trained_labels(checkpoint.training.labels, checkpoint.classes, str(checkpoint.path))
    return default_labels(checkpoint.classes, cifar=spec.stem == "cifar")


def _preprocessing(options: InputOptions, spec: Spec, ours: bool) -> Preprocessing:
    """CIFAR networks take the image as it is; ImageNet's its centre, 7/8 of the resized image, as torchvision does."""
    size = options.size or spec.image_size
    resize = options.resize or (size if spec.stem == "cifar" else size * 256 // 224)
    if resize < size:
        raise ExportError(f"--resize {resize} is less than --size {size}: there would be nothing to crop")
    default_mean, default_std = (train.MEAN, train.STD) if ours else (IMAGENET_MEAN, IMAGENET_STD)
    try:
        return Preprocessing(
            height=size,
            width=size,
            resize=resize,
            interpolation=options.interpolation,
            mean=options.mean or default_mean,
            std=options.std or default_std,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ExportError(f"--{first['loc'][0]}: {first['msg']}") from error


def _notes(checkpoint: Checkpoint, labels: Labels, images: ImageSet) -> list[str]:
    """What the caller may want to know before anything is published."""
    notes = [f"labels: {labels.source}"]
    if labels.repeated:
        notes.append(f"labels of more than one class: {', '.join(labels.repeated)}")
    if checkpoint.training and checkpoint.training.epoch != checkpoint.training.recipe.get("epochs"):
        notes.append(f"training is not finished: {checkpoint.training.epoch} epochs so far")
    elif checkpoint.aside and not checkpoint.training:
        notes.append(f"in the checkpoint but not exported: {', '.join(checkpoint.aside)}")
    if images.note:
        notes.append(f"{images.name}: no accuracy is measured: {images.note}")
    return notes


def _manifest(name: str, job: _Job, graph: Graph, verdict: Verdict, staged: Path) -> Manifest:
    file = describe_file(staged / FP32_FILE)
    spec = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(job.spec).items()}
    return Manifest(
        name=name,
        version=job.version,
        created=datetime.now(UTC).replace(microsecond=0),
        architecture=Architecture(name=job.arch, spec=spec, parameters=parameter_count(job.net)),
        source=Source(origin=job.checkpoint.origin, file=job.checkpoint.path.name, sha256=job.checkpoint.sha256),
        preprocessing=job.preprocessing,
        labels=describe_file(staged / LABELS_FILE),
        outputs=graph.outputs,
        opset=graph.opset,
        variants=[Variant(**file.model_dump(), precision="fp32", parity=verdict.parity)],
    )
