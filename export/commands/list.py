"""``python -m export list``: the models of a store, and the architectures that can be exported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import click

from export.commands.options import store_option, version_json
from export.networks.architecture import AnySpec, DenseNetSpec, HighwaySpec
from export.networks.costs import cost
from export.networks.published import PUBLISHED, Published
from export.networks.specs import SPECS
from export.reports.markdown import aligned_table
from model_store.command_line.options import json_option, print_json
from model_store.locations import open_store
from model_store.manifest import Variant
from model_store.store import ModelStore

MODELS_HEAD: Final = ("model", "version", "architecture", "classes", "variants", "accuracy")
ARCHITECTURES_HEAD: Final = ("name", "input", "parameters", "multiply-adds", "embedding", "published")


@click.command("list")
@click.argument("what", type=click.Choice(["models", "architectures", "all"]), default="all")
@store_option
@json_option
def list_command(what: str, store: str, as_json: bool) -> None:
    """List the models of the store, the known architectures, or both.

    Multiply-adds are of convolutions and head for one image; ImageNet nets are
    counted with 1000 classes, CIFAR nets with 10.

    \b
    Examples:
      python -m export list
      python -m export list models --store models --json
    """
    if as_json:
        print_json(_found(what, store))
        return
    tables = []
    if what in ("models", "all"):
        tables.append(aligned_table(MODELS_HEAD, model_rows(open_store(store))))
    if what in ("architectures", "all"):
        tables.append(aligned_table(ARCHITECTURES_HEAD, architecture_rows(), right=(2, 3, 4)))
    click.echo("\n\n".join(tables))


def _found(what: str, location: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if what in ("models", "all"):
        store = open_store(location)
        stored = [(name, store.resolve(name, version)) for name in store.names() for version in store.versions(name)]
        found["models"] = [
            version_json(store, one) | {"names": _names(store, name, one.manifest.version)} for name, one in stored
        ]
    if what in ("architectures", "all"):
        found["architectures"] = [_architecture(name, spec) for name, spec in SPECS.items()]
    return found


def _names(store: ModelStore, name: str, version: str) -> list[str]:
    """What ``version`` is called: served is what stands for the model."""
    names = {"served": store.choose(name, None), **store.aliases(name)}
    return [alias for alias, named in names.items() if named == version]


def _architecture(name: str, spec: AnySpec) -> dict[str, Any]:
    parameters, multiply_adds = cost(spec, classes(spec))
    return {
        "name": name,
        "input": spec.image_size,
        "parameters": parameters,
        "multiply_adds": multiply_adds,
        "embedding": spec.embedding_size,
    }


def model_rows(store: ModelStore) -> Iterator[Sequence[str]]:
    """A row for every version in the store, oldest first, with its names."""
    for name in store.names():
        for version in store.versions(name):
            manifest = store.manifest(name, version)
            called = ", ".join(_names(store, name, version))
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
