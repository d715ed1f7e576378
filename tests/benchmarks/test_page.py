"""Results to Markdown and plots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.page import fill, load, main, render
from benchmarks.report import Report, Target


def run(rate: float) -> dict[str, Any]:
    return {"per_second": rate, "latency_ms": {"p50": 10.0, "p99": 20.0}}


DATA: dict[str, dict[str, Any]] = {
    "end_to_end": {
        "rounds": {
            "bound": {"8": [{"per_second": 100.0, "cpu_ms": 9.0}]},
            "closed": {"1": [run(50.0), run(60.0)], "16": [run(95.0), run(99.0)]},
        }
    },
    "stages": {"stages_ms": {"decode": [1.0, 2.0], "inference": [3.0]}},
    "peers": {
        "runs": {
            "int8": {"name": "this service, int8", "ours": True, "reason": "", "busy": [run(200.0)]},
            "ray": {"name": "Ray Serve", "ours": False, "reason": "", "busy": [run(20.0)]},
            "torchserve": {"name": "TorchServe", "ours": False, "reason": "no java", "busy": []},
        }
    },
    "scaling": {
        "cores": {"1": [50.0], "2": [99.0]},
        "sizes": [[4096, 200.0, 210.0], [480000, 100.0, 110.0]],
        "models": {"rates": {"1": [90.0], "8": [80.0]}},
    },
    "mlperf": {"Offline": {"value": 1.0}},
}


def write(folder: Path, name: str, program: str, *, smoke: bool = False) -> Path:
    """A result as a program writes it."""
    report = Report(
        program, smoke, command="python -m benchmarks.x", machine={"processor": "a CPU"}, data=DATA[program]
    )
    report.table("Some title", ["what", "figure"], [["one | two", "1"]])
    report.hold([Target("speed", 3.0, 2, True)])
    report.notes.append("A note.")
    report.finish(folder / f"{name}.json")
    return folder / f"{name}.json"


@pytest.mark.parametrize("program", DATA)
def test_a_page_has_the_figures_and_the_plot(tmp_path: Path, program: str, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "some", program)
    (tmp_path / "decode.txt").write_text("plain text\n")
    main([str(tmp_path)])
    page = (tmp_path / "index.md").read_text()
    for text in (
        "## some", "`python -m benchmarks.x`", "- processor: a CPU", "| speed | 3.00 | at least 2 | yes |",
        "**Some title**", "| one \\| two | 1 |", "A note.", "```text\nplain text\n```",
    ):  # fmt: skip
        assert text in page
    drawn = program != "mlperf"
    assert ("![plot](some.svg)" in page) is drawn
    assert (tmp_path / "some.svg").exists() is drawn
    if drawn:
        assert ElementTree.fromstring((tmp_path / "some.svg").read_bytes()).tag.endswith("svg")  # noqa: S314
    assert "index.md" in capsys.readouterr().out


def test_the_same_figures_draw_the_same_bytes(tmp_path: Path) -> None:
    pages = []
    for name in ("a", "b"):
        write(tmp_path / name, "some", "stages")
        main([str(tmp_path / name)])
        pages.append((tmp_path / name / "some.svg").read_bytes())
    assert pages[0] == pages[1]


def test_a_document_is_filled_and_stays_filled(tmp_path: Path) -> None:
    write(tmp_path / "results", "stages", "stages")
    document = tmp_path / "docs" / "page.md"
    document.parent.mkdir()
    document.write_text(
        "Before\n\n<!-- result: stages -->\nold\n<!-- end -->\n\n<!-- result: none -->\n<!-- end -->\nAfter\n"
    )
    main([str(tmp_path / "results"), "--docs", str(document)])
    filled = document.read_text()
    assert "old" not in filled
    assert render(load(tmp_path / "results" / "stages.json"), "images/performance/stages.svg") in filled
    assert "Not measured yet." in filled
    assert filled.startswith("Before\n")
    assert filled.endswith("After\n")
    assert (document.parent / "images" / "performance" / "stages.svg").exists()
    fill(document, tmp_path / "results")
    assert document.read_text() == filled


def test_a_smoke_run_stays_out_of_documents(tmp_path: Path) -> None:
    path = write(tmp_path, "stages", "stages", smoke=True)
    assert "figures mean nothing" in render(load(path))
    document = tmp_path / "page.md"
    document.write_text("<!-- result: stages -->\n<!-- end -->\n")
    with pytest.raises(SystemExit, match="smoke run"):
        fill(document, tmp_path)


def test_something_else_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(json.dumps({"program": "x", "colour": "blue"}))
    with pytest.raises(TypeError, match="colour"):
        load(tmp_path / "other.json")
