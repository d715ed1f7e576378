"""The bar of a run over images."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from model_store.command_line.progress import ImagesBar


@pytest.mark.parametrize("stays", [False, True])
def test_a_bar_on_a_terminal(stays: bool) -> None:
    file = io.StringIO()
    with ImagesBar(10, Console(file=file, force_terminal=True, width=120), before=4, stays=stays) as bar:
        bar.add(5, 0)
        bar.add(1, 1)
    assert (bar.done, bar.failed, bar.total) == (6, 1, 10)
    assert bar.rate > 0
    assert bar.seconds > 0
    assert "10/10" in file.getvalue()
    assert "1 failed" in file.getvalue()
    assert ("10/10" in file.getvalue().splitlines()[-2]) is stays


def test_nothing_elsewhere() -> None:
    file = io.StringIO()
    with ImagesBar(2, Console(file=file)) as bar:
        bar.add(2, 1)
    assert file.getvalue().strip() == ""
