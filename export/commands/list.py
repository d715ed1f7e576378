"""``python -m export list``: the models of a store, and the architectures that can be exported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import click

from export.commands.options import store_option
from export.networks.architecture import AnySpec, DenseNetSpec, HighwaySpec
from export.networks.costs import cost
from export.networks.published import PUBLISHED, Published
from export.networks.specs import SPECS
from export.reports.markdown import aligned_table
from model_store.locations import open_store
from model_store.manifest import Variant
from model_store.store import ModelStore

MODELS_HEAD: Final = ("model", "version", "architecture", "classes", "variants", "accuracy")
ARCHITECTURES_HEAD: Final = ("name", "input", "parameters", "multiply-adds", "embedding", "published")


@click.command("list")
@click.argument("what", type=click.Choice(["models", "architectures", "all"]), default="all")
@store_option
def list_command(what: str, store: str) -> None:
    """List the models of the store, the known architectures, or both.

    Multiply-adds are of convolutions and head for one image; ImageNet nets are
    counted with 1000 classes, CIFAR nets with 10.
    """
    tables = []
    if what in ("models", "all"):
        tables.append(aligned_table(MODELS_HEAD, model_rows(open_store(store))))
    if what in ("architectures", "all"):
        tables.append(aligned_table(ARCHITECTURES_HEAD, architecture_rows(), right=(2, 3, 4)))
    click.echo("\n\n".join(tables))


def model_rows(store: ModelStore) -> Iterator[Sequence[str]]:
    """A row for every version in the store, oldest first, with its names: served is what stands for the model."""
    for name in store.names():
        names = {"served": store.choose(name, None), **store.aliases(name)}
        for version in store.versions(name):
            manifest = store.manifest(name, version)
            called = ", ".join(alias for alias, named in names.items() if named == version)
            fp32 = manifest.variant("fp32")
            accuracy = fp32.parity.accuracy if fp32 and fp32.parity else None
            yield (
                name,
                f"{version} ({called})" if called else version,
                manifest.architecture.name,
                str(manifest.outputs.classes),
                ", ".join(map(_variant, manifest.variants)),
                f"{accuracy.exported:.2%}" if accuracy else "not measured",
            )


def _variant(variant: Variant) -> str:
    """Its precision, and where it was compared with fp32."""
    if not variant.gated:
        return f"{variant.precision} (ungated)"
    return f"{variant.precision} ({variant.gate.provider})" if variant.gate else variant.precision


def architecture_rows() -> Iterator[Sequence[str]]:
    """A row for every known architecture, with what it costs and what is published of it."""
    for name, spec in SPECS.items():
        parameters, multiply_adds = cost(spec, classes(spec))
        yield (
            name,
            f"{spec.image_size}x{spec.image_size}",
            f"{parameters:,}",
            f"{multiply_adds / 1e9:.3f} G",
            str(spec.embedding_size),
            _published(PUBLISHED.get(name)),
        )


def classes(spec: AnySpec) -> int:
    """Of the data set that the network is for: CIFAR-10's or ImageNet's."""
    return 10 if spec.cifar else 1000


def describe(spec: AnySpec) -> str:
    """``spec`` in a few words."""
    depths = "-".join(map(str, spec.depths))
    if isinstance(spec, DenseNetSpec):
        return f"DenseNet-BC, growth {spec.growth}, dense blocks of {depths} layers"
    if isinstance(spec, HighwaySpec):
        return f"highway network, stages of {depths} layers"
    words = {"none": "plain, no shortcuts", "A": "shortcuts A", "B": "shortcuts B", "C": "shortcuts C"}
    parts = [f"{spec.block} blocks {depths}", words[spec.shortcut], f"{spec.order}-activation", f"{spec.stem} stem"]
    if spec.block == "bottleneck":
        parts.append(f"stride in the {spec.stride_in}")
    if spec.groups > 1:
        parts.append(f"{spec.groups} groups of {spec.group_width}")
    elif spec.group_width != 64:
        parts.append(f"{spec.group_width / 64:g} times as wide inside")
    if spec.attention != "none":
        parts.append({"se": "squeeze and excitation", "eca": "efficient channel attention"}[spec.attention])
    parts += ["average-pool shortcuts"] * spec.pool_shortcut + ["blur-pool"] * spec.blur_pool
    return ", ".join(parts)


def _published(found: Published | None) -> str:
    if found is None:
        return ""
    millions = found.parameters and found.parameters + ("" if "," in found.parameters else " M")
    figures = [millions, found.multiply_adds and f"{found.multiply_adds} G"]
    note = f"; {found.note}" if found.note else ""
    return f"{', '.join(figure for figure in figures if figure)} ({found.source}{note})"
