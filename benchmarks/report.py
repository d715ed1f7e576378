"""What a program found: shown as tables, kept as JSON for the page, held against its targets."""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe

_SMOKE: Final = "SMOKE RUN: seconds short, to see that it runs; its figures mean nothing"


def median(values: Sequence[float]) -> float:
    """The median; NaN of nothing."""
    return statistics.median(values) if values else math.nan


def figure(value: float) -> str:
    """A number with the figures that matter."""
    if not math.isfinite(value):
        return "-"
    if abs(value) >= 100 or value == 0:
        return f"{value:.0f}"
    return f"{value:.{1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 4}f}"


def spread(values: Sequence[float]) -> str:
    """The median with the least and the most."""
    if not values:
        return "-"
    if len(values) == 1:
        return figure(values[0])
    return f"{figure(median(values))} ({figure(min(values))} to {figure(max(values))})"


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Round by round, as only neighbours in time saw the same machine."""
    return [a / b if b else math.nan for a, b in zip(above, below, strict=True)]


@dataclass(frozen=True)
class Target:
    """One promise and what was measured; None where it was not measured, with the reason in ``note``."""

    name: str
    measured: float | None
    limit: float
    at_least: bool
    unit: str = ""
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.measured is None or math.isnan(self.measured):
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    def cells(self) -> list[str]:
        unit = f" {self.unit}" if self.unit else ""
        measured = "not measured" if self.met is None else f"{figure(self.measured or 0.0)}{unit}"
        verdict = {True: "yes", False: "no", None: "-"}[self.met]
        bound = f"{'at least' if self.at_least else 'at most'} {self.limit:g}{unit}"
        return [self.name, f"{measured}{f' ({self.note})' if self.note else ''}", bound, verdict]


@dataclass
class Report:
    """A program's result, filled as it goes."""

    program: str
    smoke: bool = False
    command: str = field(default_factory=lambda: shlex.join(["python", *_module(), *sys.argv[1:]]))
    machine: dict[str, str] = field(default_factory=describe)
    subject: dict[str, str] = field(default_factory=dict)
    tables: list[dict[str, Any]] = field(default_factory=list)
    targets: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    def table(self, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.tables.append({"title": title, "head": list(head), "rows": [list(row) for row in rows]})

    def hold(self, targets: Sequence[Target]) -> None:
        """Add ``targets`` and how they came out."""
        self.targets += [{**asdict(target), "met": target.met, "cells": target.cells()} for target in targets]

    def finish(self, path: Path | None) -> None:
        """Print it all; write it as JSON where ``path`` says so."""
        self.machine["load after"] = " ".join(f"{value:.2f}" for value in os.getloadavg())
        console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
        if self.smoke:
            console.print(f"[bold]{_SMOKE}[/bold]")
        console.print(f"$ {self.command}", markup=False)
        for name, text in {**self.machine, **self.subject}.items():
            console.print(f"{name}: {text}", markup=False)
        tables = [(found["title"], found["head"], found["rows"]) for found in self.tables]
        if self.targets:
            tables.append(("Targets", TARGETS_HEAD, [target["cells"] for target in self.targets]))
        for title, head, rows in tables:
            shown = Table(*head, title=title, title_justify="left")
            for row in rows:
                shown.add_row(*row)
            console.print(shown)
        for note in self.notes:
            console.print(note, markup=False)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


TARGETS_HEAD: Final = ("target", "measured", "wanted", "met")


def _module() -> list[str]:
    """How the running program was called: ``-m`` and its module's name."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return ["-m", spec.name.removesuffix(".__main__")] if spec is not None else sys.argv[:1]


def common_options(program: str, doc: str | None, *, seconds: float = 5.0, rounds: int = 3) -> argparse.ArgumentParser:
    """A parser with the options that every program takes."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{program}", description=(doc or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=seconds, help="length of each measurement (%(default)s)")
    parser.add_argument("--rounds", type=int, default=rounds, help="how often everything takes its turn (%(default)s)")
    parser.add_argument("--smoke", action="store_true", help="run all of it seconds short, to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, for the page")
    return parser


def parse_with_parts(parser: argparse.ArgumentParser, parts: Iterable[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options of a program in parts, and which of ``parts`` were asked for; an unknown one ends it."""
    known = list(parts)
    parser.add_argument("--parts", default=",".join(known), help="which parts, separated by commas")
    options = parser.parse_args()
    asked: list[str] = options.parts.split(",")
    if unknown := set(asked) - set(known):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return options, asked


def shorten(options: argparse.Namespace) -> argparse.Namespace:
    """``options``, cut short where they ask for a smoke run."""
    if options.smoke:
        options.seconds, options.rounds = min(options.seconds, 0.4), 1
    return options
