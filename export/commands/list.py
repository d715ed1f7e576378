"""``python -m export list``: the models of a store, and the architectures that can be exported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import click

from export.commands.options import store_option, version_json
from export.reports.markdown import aligned_table
from model_store.command_line.options import json_option, print_json
from model_store.locations import open_store
from model_store.manifest import Variant
from model_store.store import ModelStore

MODELS_HEAD: Final = ("model", "version", "architecture", "classes", "variants", "accuracy")


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
        from export.commands.architectures import HEAD, architecture_rows  # PyTorch, which a store does not need

        tables.append(aligned_table(HEAD, architecture_rows(), right=(2, 3, 4)))
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
        from export.commands.architectures import architectures

        found["architectures"] = architectures()
    return found


def _names(store: ModelStore, name: str, version: str) -> list[str]:
    """What ``version`` is called: served is what stands for the model."""
    names = {"served": store.choose(name, None), **store.aliases(name)}
    return [alias for alias, named in names.items() if named == version]


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
