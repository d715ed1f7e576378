"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

from model_store.manifest import check_name, check_version
from model_store.store import EMBEDDED_MODELS

store_option = click.option(
    "--store",
    type=click.Path(path_type=Path),
    metavar="DIR",
    default=EMBEDDED_MODELS,
    help="The model store; by default the one in this repository.",
)


class ModelReference(click.ParamType[tuple[str, str | None]]):
    """``NAME`` or ``NAME@VERSION``, as a pair."""

    name = "model"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str | None]:
        name, at, version = str(value).partition("@")
        try:
            return check_name(name), check_version(version) if at else None
        except ValueError as error:
            self.fail(str(error), param, ctx)
