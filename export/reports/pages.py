"""Reports as one HTML page that needs nothing else: Jinja's templates, and plots as inline SVG.

Labels and file names come from outside: the templates escape them, and in the
plots they are plain text, never mathematics. The page's policy lets no script and no image in.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Plot:
    """One plot: its title, what it tells, and the SVG element, in which matplotlib has escaped all text."""

    title: str
    text: str
    svg: str


def render_page(template: str, **values: object) -> str:
    """The page that ``template``, beside this file, makes of ``values``."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def svg(name: str, draw: Callable[[Axes], None], square: bool = False) -> str:
    """What ``draw`` draws, made without a display. Ids are told apart by ``name``, as all plots share one page."""
    style: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": name, "text.parse_math": False, "font.size": 9}
    with mpl.rc_context(style), warnings.catch_warnings():
        # A script that the font lacks: the reader's browser has another.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure = Figure(figsize=(6.4, 5.6) if square else (6.4, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = file.getvalue()
    return text[text.index("<svg") :]  # what is before the element is no part of HTML
