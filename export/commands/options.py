"""Options and arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from export.variants.gate import Thresholds
from model_store.manifest import parse_reference
from model_store.store import EMBEDDED_MODELS, ModelStore
from model_store.stored_model import StoredModel

F = TypeVar("F", bound=Callable[..., Any])

store_option = click.option(
    "--store",
    metavar="DIR_OR_URL",
    default=str(EMBEDDED_MODELS),
    help="The model store, a folder or a URL such as s3://bucket/models; by default the one in this repository.",
)


def place(store: ModelStore, stored: StoredModel) -> str:
    """Where a version is, in the words that one would look for it by."""
    return f"{store}/{stored.manifest.name}/{stored.manifest.version}"


def images_option(meaning: str) -> Callable[[F], F]:
    """``--images``, which the command cannot do without."""
    return click.option("--images", type=click.Path(path_type=Path), required=True, metavar="DIR_OR_ZIP", help=meaning)


max_accuracy_drop_option = click.option(
    "--max-accuracy-drop",
    type=click.FloatRange(0, 100),
    default=100 * Thresholds.max_accuracy_drop,
    show_default=True,
    metavar="POINTS",
    help="With labels: how far below fp32's a variant's accuracy may be.",
)
min_agreement_option = click.option(
    "--min-agreement",
    type=click.FloatRange(0, 100),
    default=100 * Thresholds.min_agreement,
    show_default=True,
    metavar="PERCENT",
    help="Without labels: how many of a variant's top classes must be fp32's.",
)


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
