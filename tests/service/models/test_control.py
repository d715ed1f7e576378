from __future__ import annotations

from pathlib import Path

import pytest

from service.models.control import Control, Mark
from service.process.workers import make_run_dir


@pytest.mark.parametrize("shared", [True, False])
def test_a_mark_is_seen_and_differs_each_time(tmp_path: Path, shared: bool) -> None:
    control = Control(tmp_path if shared else None)
    assert control.read() == {}
    seen: list[Mark] = []
    for unloaded in (True, True, False, False):
        control.mark("a.b-c", unloaded=unloaded)
        control.mark("other", unloaded=False)
        seen.append(control.read()["a.b-c"])
    assert [mark.unloaded for mark in seen] == [True, True, False, False]
    assert len(set(seen)) == 4


def test_all_workers_see_it_and_a_new_start_forgets_it(tmp_path: Path) -> None:
    Control(tmp_path).mark("tiny", unloaded=True)
    assert Control(tmp_path).read()["tiny"].unloaded
    make_run_dir(tmp_path)
    assert Control(tmp_path).read() == {}


@pytest.mark.parametrize("name", ["../x", "", "A", "a/b"])
def test_only_names_of_models_are_marked(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="no model name"):
        Control(tmp_path).mark(name, unloaded=True)
    assert not list(tmp_path.iterdir())
