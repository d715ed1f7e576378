"""Options and arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from model_store.command_line import options
from model_store.manifest import Variant, parse_reference
from model_store.store import EMBEDDED_MODELS, ModelStore
from model_store.stored_model import StoredModel

F = TypeVar("F", bound=Callable[..., Any])


store_option = options.store_option(str(EMBEDDED_MODELS))


def place(store: ModelStore, stored: StoredModel) -> str:
    """Where a version is, in the words that one would look for it by."""
    return f"{store}/{stored.manifest.name}/{stored.manifest.version}"


def taken(stored: StoredModel) -> tuple[str, str]:
    """A row of what becomes of a new version of a model that may be served already."""
    kept = f"RESNET_MODELS={stored.manifest.name}@N keeps version N"
    return "served", f"within seconds, where a service runs on this store; {kept}"


def version_json(store: ModelStore, stored: StoredModel) -> dict[str, Any]:
    """A version as ``--json`` tells of it."""
    manifest = stored.manifest
    return {
        "model": manifest.name,
        "version": manifest.version,
        "folder": place(store, stored),
        "architecture": manifest.architecture.name,
        "classes": manifest.outputs.classes,
        "variants": [_variant_json(variant) for variant in manifest.variants],
    }


def _variant_json(variant: Variant) -> dict[str, Any]:
    accuracy = variant.parity and variant.parity.accuracy
    return {
        "precision": variant.precision,
        "file": variant.file,
        "bytes": variant.bytes,
        "sha256": variant.sha256,
        "gated": variant.gated,
        "accuracy": accuracy.exported if accuracy else variant.gate.accuracy if variant.gate else None,
    }


def images_option(meaning: str) -> Callable[[F], F]:
    """``--images``, which the command cannot do without."""
    return click.option("--images", type=click.Path(path_type=Path), required=True, metavar="DIR_OR_ZIP", help=meaning)


class ModelReference(click.ParamType[tuple[str, str | None]]):
    """``NAME`` or ``NAME@VERSION``, as a pair."""

    name = "model"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str | None]:
        try:
            return parse_reference(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
