"""Options that mean the same in every command that has them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def _place(ctx: click.Context, parameter: click.Parameter, given: str | None) -> str | None:
    if given is None:
        return None
    from model_store.locations import parse_location  # not for the client, which has no store

    try:
        parse_location(given)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, parameter) from error
    return given


def store_option(default: str | None = None) -> Callable[[F], F]:
    """``--store``, as text that names a place where a store can be; ``default`` where nobody says."""
    return click.option(
        "--store",
        metavar="DIR_OR_URL",
        envvar="RESNET_MODEL_STORE",
        show_envvar=True,
        default=default,
        callback=_place,
        help="The model store, a folder or a URL such as s3://bucket/models; by default the one in this repository.",
    )


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on standard output, and nothing else there."
)


def print_json(found: Mapping[str, Any]) -> None:
    """What ``--json`` asks for."""
    click.echo(json.dumps(found, indent=2, ensure_ascii=False))
