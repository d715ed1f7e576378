"""``python -m service tune MODEL``: measure settings here, keep the best in a profile that the service uses."""

from __future__ import annotations

import asyncio
import logging
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from model_store.command_line.options import json_option, print_json
from model_store.command_line.program import SOME_FAILED, when_interrupted
from model_store.locations import open_store
from model_store.stored_model import StoredModel
from service.commands.options import settings_with, store_option
from service.config import Settings, variable
from service.inference.precision import check_precision
from service.process.cpus import available_cpus
from service.process.workers import worker_count
from service.providers import starts_on_gpu
from service.tuning.images import TuneError, load_images
from service.tuning.machine import key_here
from service.tuning.measure import Plan, Subject
from service.tuning.profile import Profile, check_writable, profiles_folder, save
from service.tuning.report import check_plot, failures, picture, table, text_plot
from service.tuning.search import Outcome, Search

_RESTLESS: Final = 0.3


@click.command()
@click.argument("model")
@click.option(
    "--p99-ms",
    type=click.FloatRange(0, min_open=True),
    default=50.0,
    show_default=True,
    help="The latency goal: what 99 % of the images must stay within, in this process, without HTTP.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    metavar="DIR_OR_ZIP",
    help="Images like those that will be served; without them, made ones of a photo's size.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, 3600, min_open=True),
    default=0.8,
    show_default=True,
    help="How long each candidate is measured under each load, in each round.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    help="How often; the medians count.",
)
@store_option
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Also draw the plot: PNG, SVG, PDF."
)
@json_option
@when_interrupted("no profile was written")
def tune(
    model: str,
    p99_ms: float,
    images: Path | None,
    seconds: float,
    rounds: int,
    store: str | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Find the settings that serve MODEL best on this machine, and keep them in a profile.

    MODEL is NAME or NAME@VERSION. Provider, precision, slots, batch size,
    decode threads and spreading are measured, in minutes; the most images a
    second within --p99-ms win. What RESNET_ variables fix stays as it is.
    Status 1: a profile was kept, but it does not meet the goal.

    \b
    Examples:
      python -m service tune cifar10-resnet16
      python -m service tune mine --p99-ms 30 --images photos/ --store models
    """
    # What fails is in the table; the runtimes' own words would tear the progress bar.
    logging.getLogger("service").setLevel(logging.CRITICAL)
    settings = settings_with(store)
    stored = open_store(settings.store.model_store, settings.store.store_cache).find(model)
    stored.verify()
    check_precision(stored, settings.inference.precision)
    folder = _writable_folder(settings, stored)
    if plot is not None:
        check_plot(plot)
    workers = worker_count(settings.server.workers, on_gpu=starts_on_gpu(settings.inference.provider))
    subject = Subject(stored, settings, workers, load_images(images, settings))
    plan = Plan(seconds, rounds, p99_ms)
    told = Console(stderr=True)
    cores = max(1, available_cpus() // subject.workers)
    outcome = _search(subject, cores, plan, told)
    profile = _profile(subject, cores, plan, outcome)
    path = save(folder, profile)
    if plot is not None:
        picture(plot, outcome, p99_ms)
    _show(told if as_json else Console(), outcome, profile, path)
    if as_json:
        print_json(_everything(outcome, profile, path))
    sys.exit(0 if profile.meets_goal else SOME_FAILED)


def _writable_folder(settings: Settings, stored: StoredModel) -> Path:
    folder = profiles_folder(settings.store, stored)
    if folder is None:
        raise TuneError(f"{variable('profiles')}=off: nowhere to keep a profile; unset it, or name a folder")
    try:
        check_writable(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise TuneError(f"{folder}: {reason}; {variable('profiles')}=DIR keeps profiles elsewhere") from error
    return folder


def _search(subject: Subject, cores: int, plan: Plan, told: Console) -> Outcome:
    """Measure it all, with a bar on a terminal and a line at the start anywhere."""
    manifest, images = subject.stored.manifest, subject.images
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=told, transient=True, disable=not told.is_terminal) as progress:
        task = progress.add_task("")

        def tell(what: str, measured_s: float) -> None:
            progress.update(task, description=what or None, advance=measured_s)

        search = Search(subject, cores, plan, tell)
        progress.update(task, total=search.longest_s)
        share = f", one worker of {subject.workers}" if subject.workers > 1 else ""
        told.print(
            f"{manifest.name} version {manifest.version} on {cores} cores{share}, {images.origin}: "
            f"at most {_duration(search.longest_s)} of measuring, and the time to open it",
            soft_wrap=True,
        )
        # The event loop that the service runs on.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(search.run())


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _profile(subject: Subject, cores: int, plan: Plan, outcome: Outcome) -> Profile:
    return Profile(
        created=datetime.now(UTC),
        key=key_here(subject.stored, cores, subject.settings),
        choice=outcome.choice,
        figures=outcome.figures,
        goal_p99_ms=plan.goal_ms,
        image_source=subject.images.origin,
    )


def _show(console: Console, outcome: Outcome, profile: Profile, path: Path) -> None:
    def line(text: str) -> None:
        console.print(text, soft_wrap=True, markup=False, highlight=False)

    console.print(table(outcome, profile.goal_p99_ms))
    for failure in failures(outcome):
        line(failure)
    line("\n" + text_plot(outcome, profile.goal_p99_ms) + "\n")
    if outcome.unrest > _RESTLESS:
        line(f"warning   rounds differ by {outcome.unrest:.0%}: something else runs here; tune again when it is quiet")
    figures, goal = profile.figures, profile.goal_p99_ms
    reached = f"{figures.images_per_second:.1f} images/s, p99 {figures.p99_ms:.1f} ms with {figures.clients} clients"
    if profile.meets_goal:
        line(f"chosen    {reached} (goal {goal:g} ms)")
    else:
        line(f"chosen    {reached}: the goal of {goal:g} ms is not met, this comes nearest")
    if (defaults := outcome.defaults) is not None:
        line(f"defaults  {defaults.images_per_second:.1f} images/s, p99 {defaults.p99_ms:.1f} ms")
    line(f"settings  {' '.join(f'{variable(name)}={_value(value)}' for name, value in profile.choice)}")
    same = "".join(f" {name}={value}" for name, value in profile.key.fixed.items())
    line(f"profile   {path}; the service uses it from its next start{' with' + same if same else ''}")


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _everything(outcome: Outcome, profile: Profile, path: Path) -> dict[str, Any]:
    def plain(trial: Any) -> dict[str, Any]:
        return asdict(trial) | {
            "choice": trial.choice.model_dump(),
            "figures": [figures.model_dump() for figures in trial.figures],
        }

    return {
        "profile": profile.model_dump(mode="json"),
        "path": str(path),
        "meets_goal": profile.meets_goal,
        "defaults": outcome.defaults.model_dump() if outcome.defaults else None,
        "unrest": outcome.unrest,
        "passed_over": outcome.passed_over,
        "trials": [plain(trial) for trial in outcome.trials],
    }
