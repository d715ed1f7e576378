"""What people see of a measurement: a table of all candidates, and throughput against p99 as text or picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from rich.table import Table

from service.tuning.candidates import SPREAD, Trial
from service.tuning.images import TuneError
from service.tuning.profile import Choice
from service.tuning.search import Outcome

_WIDTH, _HEIGHT = 56, 14
_NUMBERS: Final = ("slots", "batch", "decode", "spread", "load", "images/s", "p50 ms", "p99 ms")
_VARIED: Final = {"max_batch": "batch", "decode_threads": "decode", SPREAD: "spread"}


def table(outcome: Outcome, goal_ms: float) -> Table:
    """A row a candidate, with its best load (clients at a time) within the goal; rows of what was chosen are marked."""
    shown = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    for title in ("", "varied", "runs on"):
        shown.add_column(title, no_wrap=True)
    for title in _NUMBERS:
        shown.add_column(title, justify="right", no_wrap=True)
    stage = ""
    for trial in outcome.trials:
        if stage and trial.stage != stage:
            shown.add_section()
        first, stage = trial.stage != stage, trial.stage
        chosen = _is_chosen(trial, outcome)
        row = ["*" if chosen else "", _VARIED.get(stage, stage) if first else "", *_settings(trial.choice)]
        style = "bold" if chosen else None
        shown.add_row(*row, *_measured(trial, goal_ms), style=style)
    return shown


def _is_chosen(trial: Trial, outcome: Outcome) -> bool:
    """Whether ``trial`` is of what was chosen; spreading counts only where it was varied."""
    spread = trial.choice.spread_lone_image if trial.stage != SPREAD else outcome.choice.spread_lone_image
    return trial.choice == outcome.choice.model_copy(update={SPREAD: spread})


def _settings(choice: Choice) -> Iterator[str]:
    yield from (f"{choice.provider} {choice.precision}", str(choice.slots), str(choice.max_batch))
    yield from (str(choice.decode_threads), "yes" if choice.spread_lone_image else "no")


def _measured(trial: Trial, goal_ms: float) -> Sequence[str]:
    if not trial.figures:
        return ("", "failed", "", "")
    best = trial.at(goal_ms)
    late = "" if best.p99_ms <= goal_ms else ">"
    return str(best.clients), f"{best.images_per_second:.1f}", f"{best.p50_ms:.1f}", f"{late}{best.p99_ms:.1f}"


def failures(outcome: Outcome) -> Iterator[str]:
    """A line for each provider that is not here, and each candidate that could not be measured."""
    yield from (f"not measured: {reason}" for reason in outcome.passed_over)
    for trial in outcome.trials:
        if trial.failure is not None:
            yield f"failed: {trial.choice.provider} {trial.choice.precision}: {trial.failure}"


def text_plot(outcome: Outcome, goal_ms: float) -> str:
    """Images a second (up) against p99 (right): a dot a candidate and load, ``*`` the chosen one, ``|`` the goal."""
    points = list(_points(outcome))
    right = max(goal_ms, *(p99_ms for p99_ms, _, _ in points)) * 1.02
    top = max(rate for _, rate, _ in points) * 1.02
    grid = [[" "] * _WIDTH for _ in range(_HEIGHT)]
    for row in grid:
        row[int(goal_ms / right * _WIDTH)] = "|"
    for p99_ms, rate, chosen in sorted(points, key=lambda point: point[2]):
        grid[int(rate / top * _HEIGHT)][int(p99_ms / right * _WIDTH)] = "*" if chosen else "."
    lines = [f"{top:7.0f} +" if n == _HEIGHT - 1 else "        |" for n in range(_HEIGHT)]
    drawn = [f"{axis} {''.join(row).rstrip()}" for axis, row in zip(lines, grid, strict=True)]
    foot = f"      0 +{'-' * _WIDTH} {right:.0f} ms"
    return "\n".join(["images/s against p99 (*: chosen, |: goal)", *reversed(drawn), foot])


def _points(outcome: Outcome) -> Iterator[tuple[float, float, bool]]:
    """p99 in ms, images a second, and whether of what was chosen; of all loads but the lone image's."""
    for trial in outcome.trials:
        if trial.stage != SPREAD:
            for one in trial.figures:
                yield one.p99_ms, one.images_per_second, _is_chosen(trial, outcome)


def check_plot(path: Path) -> None:
    """``TuneError`` where ``picture`` could not draw there; better known before than after the measurement."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise TuneError("--plot needs matplotlib, which `make install-dev` brings; the text plot needs none") from error
    known = Figure().canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in known or not path.parent.is_dir():
        raise TuneError(f"{path}: --plot must name a file in a folder that is there, one of {', '.join(known)}")


def picture(path: Path, outcome: Outcome, goal_ms: float) -> None:
    """The plot as a picture, in the format that the name of ``path`` ends with."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for trial in outcome.trials:
        if trial.figures and trial.stage != SPREAD:
            rates = [one.images_per_second for one in trial.figures]
            chosen = _is_chosen(trial, outcome)
            color, alpha = ("tab:red", 1.0) if chosen else ("tab:blue", 0.4)
            axes.plot([one.p99_ms for one in trial.figures], rates, marker="o", color=color, alpha=alpha)
    axes.axvline(goal_ms, color="black", linestyle="--", label="goal")
    axes.set(xlabel="p99, ms", ylabel="images/s", xlim=(0, None), ylim=(0, None))
    axes.legend()
    figure.savefig(path)
