"""Shared by the programs here and in tests/security: a service to load and break, a command line, and how they end.

A program fills a ``benchmarks.report.Report``: its tables are the figures, its targets the promises. Its command
line is ``program``: the module's text is its help, and the status says whether every promise was kept.
"""

from __future__ import annotations

import functools
import inspect
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from benchmarks.report import Report, Target, figure
from benchmarks.server import SERVICE, Server, kept_to, prepared
from benchmarks.subject import assigned

KEPT, BROKEN = 0, 1
"""Exit statuses."""


@contextmanager
def instances(count: int, *, service: str = SERVICE, **settings: str) -> Iterator[list[Server]]:
    """``count`` services of one worker, with these ``RESNET_*`` settings, yet to be started; each ends by SIGTERM."""
    with ExitStack() as closing:
        chosen = {"RESNET_WORKERS": "1", **settings}
        made = [closing.enter_context(prepared(chosen, service)) for _ in range(count)]
        yield made
        for one in made:
            assert one.stop() != -signal.SIGKILL, f"it did not end by SIGTERM: {one.log[-3000:]}"


@contextmanager
def serving(*, service: str = SERVICE, cpus: Sequence[int] | None = None, **settings: str) -> Iterator[Server]:
    """A ready one, kept to ``cpus``."""
    with instances(1, service=service, **settings) as (server,):
        server.start(*kept_to(cpus))
        server.wait_ready()
        yield server


def describe(report: Report, server: Server) -> None:
    """Say in ``report`` what is served."""
    model = server.models()[0]
    report.subject["model"] = f"{model['name']} {model['version']}, {model['provider']}, {model['precision']}"


def figures(report: Report, title: str, found: Mapping[str, Any]) -> None:
    """A table of ``found``, one a line."""
    cells = [[name, figure(value) if isinstance(value, float) else str(value)] for name, value in found.items()]
    report.table(title, ["what", "figure"], cells)


def none_of(name: str, count: float, note: str = "") -> Target:
    """The promise that something never happens."""
    return Target(name, count, 0, at_least=False, note=note)


def broken(report: Report) -> list[str]:
    """The promises that were not kept, and those that were not measured."""
    return [target["name"] for target in report.targets if target["met"] is not True]


def conclude(report: Report, json: Path | None = None) -> NoReturn:
    """Print ``report`` and end; the status says whether every promise was kept."""
    report.finish(json)
    sys.exit(BROKEN if broken(report) else KEPT)


def program(run: Callable[..., Report]) -> click.Command:
    """``run``'s command line; it is called with its options and ``settings``, those of ``--set``."""

    @click.option(
        "--set", "settings", multiple=True, callback=_settings, metavar="RESNET_NAME=VALUE",
        help="A setting of the service, any number of times.",
    )  # fmt: skip
    @click.option(
        "--json", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write all figures there, too."
    )
    @functools.wraps(run)
    def command(json: Path | None, **options: Any) -> NoReturn:
        conclude(run(**options), json)

    text = inspect.getdoc(sys.modules[run.__module__]) or ""
    return click.command(help=re.sub(r"\n\n(?= {4})", "\n\n\b\n", text))(command)


def _settings(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    try:
        return assigned(given)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
