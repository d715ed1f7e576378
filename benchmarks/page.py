"""Results as a page with plots.

    python -m benchmarks.page build/bench
    python -m benchmarks.page benchmarks/results --docs docs/performance.md

The first writes ``index.md`` and the plots beside the results. The second fills the blocks of a document: what stands
between ``<!-- result: NAME -->`` and ``<!-- end -->`` becomes NAME.json's figures, the plots go beside the document.
A result of a smoke run is never put into a document.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.plots import plot
from benchmarks.report import TARGETS_HEAD, Report
from export.reports.markdown import table

_BLOCK: Final = re.compile(r"(<!-- result: ([\w.-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_IMAGES: Final = Path("images") / "performance"


def load(path: Path) -> dict[str, Any]:
    """One result, as its program wrote it."""
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    Report(**result)  # a file of something else, or of an older form, is an error here
    return result


def render(result: Mapping[str, Any], image: str | None = None) -> str:
    """``result`` in Markdown, with its plot at ``image``."""
    parts = ["**A smoke run: its figures mean nothing.**"] if result["smoke"] else []
    facts = {**result["machine"], **result["subject"]}
    parts.append("\n".join([f"`{result['command']}`", "", *(f"- {name}: {text}" for name, text in facts.items())]))
    if result["targets"]:
        parts.append(table(TARGETS_HEAD, [_escaped(target["cells"]) for target in result["targets"]]))
    if image is not None:
        parts.append(f"![plot]({image})")
    for found in result["tables"]:
        rows = [_escaped(row) for row in found["rows"]]
        parts.append(f"**{found['title']}**\n\n{table(found['head'], rows, range(1, len(found['head'])))}")
    parts += result["notes"]
    return "\n\n".join(parts) + "\n"


def _escaped(row: Sequence[str]) -> list[str]:
    return [cell.replace("|", "\\|").replace("\n", " ") for cell in row]


def write_index(folder: Path) -> Path:
    """``index.md`` of all results in ``folder``, and their plots beside them."""
    parts = ["# Measured by `make bench`\n"]
    for path in sorted(folder.glob("*.json")):
        result = load(path)
        parts.append(f"## {path.stem}\n\n{render(result, _write_plot(result, path.stem, folder))}")
    texts = sorted(folder.glob("*.txt"))
    parts += [f"## {path.stem}\n\n```text\n{path.read_text().rstrip()}\n```\n" for path in texts]
    index = folder / "index.md"
    index.write_text("\n".join(parts), encoding="utf-8")
    return index


def _write_plot(result: Mapping[str, Any], name: str, folder: Path) -> str | None:
    """The plot's file name, where there is something to draw."""
    drawn = plot(result)
    if drawn is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.svg").write_bytes(drawn)
    return f"{name}.svg"


def fill(document: Path, folder: Path) -> None:
    """Renew the blocks of ``document`` from the results in ``folder``; a block without a result stays empty."""

    def renewed(found: re.Match[str]) -> str:
        begin, name, end = found.groups()
        path = folder / f"{name}.json"
        if not path.exists():
            return f"{begin}\nNot measured yet.\n\n{end}"
        result = load(path)
        if result["smoke"]:
            raise SystemExit(f"{path} is of a smoke run; nothing of it belongs into {document}")
        image = _write_plot(result, name, document.parent / _IMAGES)
        return f"{begin}\n{render(result, image and f'{_IMAGES.as_posix()}/{image}')}\n{end}"

    document.write_text(_BLOCK.sub(renewed, document.read_text(encoding="utf-8")), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.page", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="folder of results, as --json of the programs writes them")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="fill the blocks of this document instead")
    options = parser.parse_args(arguments)
    if options.docs is not None:
        fill(options.docs, options.results)
    else:
        print(write_index(options.results))


if __name__ == "__main__":
    main()
