"""``python -m service serve``: the service, as BentoML's server runs it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from model_store.store import ModelStore
from service.commands.options import store_option
from service.config import load_settings, variable


@click.command()
@click.option(
    "--host",
    default="127.0.0.1",
    envvar="BENTOML_HOST",
    show_envvar=True,
    show_default=True,
    help="The address to listen on; 0.0.0.0 lets other machines in.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=3000,
    envvar="BENTOML_PORT",
    show_envvar=True,
    show_default=True,
)
@store_option
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME[@VERSION]",
    help=f"Serve this one; may be repeated, the first answers where a request names none. By default "
    f"{variable('models')}, or all.",
)
def serve(host: str, port: int, store: str | None, models: tuple[str, ...]) -> None:
    """Serve the models of a store over HTTP.

    All other settings are RESNET_ variables: docs/configuration.md.

    \b
    Examples:
      python -m service serve
      python -m service serve --port 8080 --store models --model mine@2
    """
    if store is not None:
        os.environ[variable("model_store")] = store
    if models:
        os.environ[variable("models")] = ",".join(models)
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    place = load_settings().store.model_store  # what is wrong with them is said here, not by each worker
    if isinstance(place, Path):
        ModelStore(place).check_there()
    server = [sys.executable, "-m", "bentoml", "serve", "service.app:ResNetService"]
    sys.stdout.flush()
    os.execv(sys.executable, [*server, "--host", host, "--port", str(port)])  # noqa: S606 - our own  # nosec B606
