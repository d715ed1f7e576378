"""Shared by the programs here: a service to load and break, what it takes of the machine, and how a program ends.

A program fills a ``benchmarks.report.Report``: its tables are the figures, its targets the promises. ``conclude``
prints it and ends with status 1 where a promise is broken.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import click
import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.report import Report
from tests.end_to_end.conftest import Server, running

SERVICE: Final = "service.app:ResNetService"
MIB: Final = 2**20
KEPT, BROKEN = 0, 1
"""Exit statuses."""

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@dataclass(frozen=True)
class Usage:
    """What all processes of a service take together."""

    resident_bytes: int
    open_files: int
    threads: int

    @property
    def resident_mib(self) -> float:
        return self.resident_bytes / MIB


@dataclass(frozen=True)
class Subject:
    """A ready service and its processes."""

    server: Server
    process: psutil.Process

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port)

    def processes(self) -> list[psutil.Process]:
        """The first one, its workers, and theirs."""
        return [self.process, *self.process.children(recursive=True)]

    def workers(self) -> list[psutil.Process]:
        return [found for found in self.processes() if "_bentoml_impl.worker" in " ".join(found.cmdline())]

    def usage(self) -> Usage:
        found = self.processes()
        return Usage(
            sum(process.memory_info().rss for process in found),
            sum(process.num_fds() for process in found),
            sum(process.num_threads() for process in found),
        )

    def cpu_s(self) -> float:
        """CPU time of all its processes so far, user and system."""
        times = [process.cpu_times() for process in self.processes()]
        return float(sum(t.user + t.system for t in times))

    def metrics(self) -> Samples:
        """The page at ``/metrics``, by name and labels."""
        page = httpx.get(f"{self.url}/metrics", timeout=30).raise_for_status().text
        found = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
        return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in found}

    def models(self) -> list[dict[str, Any]]:
        """What it says of its models, the default one first."""
        found: list[dict[str, Any]] = httpx.get(f"{self.url}/v1/models", timeout=30).raise_for_status().json()["models"]
        return found


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of the samples called ``name`` that have all of ``labels``."""
    wanted = labels.items()
    return sum(value for (found, its), value in samples.items() if found == name and wanted <= set(its))


@contextmanager
def serving(*, service: str = SERVICE, workers: int = 1, **settings: str) -> Iterator[Subject]:
    """A ready ``service`` with these ``RESNET_*`` settings."""
    command = (sys.executable, "-m", "bentoml", "serve", service)
    with running(*command, workers=workers, **settings) as server:
        yield Subject(server, psutil.Process(server.process.pid))


def describe(report: Report, subject: Subject) -> None:
    """Say in ``report`` what is served."""
    model = subject.models()[0]
    report.subject["model"] = f"{model['name']} {model['version']}, {model['provider']}, {model['precision']}"


def broken(report: Report) -> list[str]:
    """The promises that were not kept, and those that were not measured."""
    return [target["name"] for target in report.targets if target["met"] is not True]


def conclude(report: Report, json: Path | None = None) -> NoReturn:
    """Print ``report`` and end; the status says whether every promise was kept."""
    report.finish(json)
    sys.exit(BROKEN if broken(report) else KEPT)


def settings_option(command: Callable[..., None]) -> Callable[..., None]:
    """``--set RESNET_NAME=VALUE``, any number of times; ``settings_of`` makes a dictionary of them."""
    return click.option(
        "--set", "settings_given", multiple=True, metavar="RESNET_NAME=VALUE", help="A setting of the service."
    )(command)


def json_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--json", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write all figures there, too."
    )(command)


def settings_of(given: tuple[str, ...]) -> dict[str, str]:
    """The settings that ``--set`` named."""
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (equals and name.startswith("RESNET_")):
            raise click.BadParameter(f"{text}: write RESNET_NAME=VALUE")
        found[name] = value
    return found
