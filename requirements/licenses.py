"""The licences of what is shipped: ``python -m requirements.licenses`` writes a table, fails on one not allowed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import click
from license_expression import get_spdx_licensing

from requirements.locked import FOLDER, Locked, read_lock

# None of them asks more of who ships the service than to keep notices and, for MPL-2.0, changes to its own files.
ALLOWED: Final = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSD-3-Clause-Clear",
        "CC0-1.0",
        "ISC",
        "MIT",
        "MIT-CMU",
        "MPL-2.0",
        "PSF-2.0",
        "Zlib",
    }
)
_LICENSING: Final = get_spdx_licensing()


def is_allowed(expression: str) -> bool:
    """Whether every licence that ``expression`` obliges to is allowed; of several to choose from, one is enough."""
    return _allowed(_LICENSING.parse(expression))


def _allowed(node: Any) -> bool:
    if isinstance(node, _LICENSING.AND):
        return all(map(_allowed, node.args))
    if isinstance(node, _LICENSING.OR):
        return any(map(_allowed, node.args))
    return str(node) in ALLOWED


def table(packages: list[Locked]) -> str:
    """A row a package, as Markdown."""
    rows = [f"| {p.name} | {p.version} | {p.license or f'unknown ({p.said})'} |" for p in packages]
    return "\n".join(["| package | version | licence |", "| --- | --- | --- |", *rows]) + "\n"


@click.command()
@click.option("--lock", type=click.Path(exists=True, path_type=Path), default=FOLDER / "cpu.lock", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="Where the table goes.")
def main(lock: Path, out: Path) -> None:
    """Write the licences of the packages in LOCK, which are installed here, as a table."""
    packages = list(read_lock(lock))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(table(packages), encoding="utf-8")
    refused = [p for p in packages if p.license is None or not is_allowed(p.license)]
    for package in refused:
        said = package.license or f"{package.said}, unknown"
        click.echo(f"{package.name} {package.version}: licence not allowed: {said}", err=True)
    click.echo(f"{len(packages)} packages, {len(refused)} with a licence that is not allowed: {out}")
    sys.exit(bool(refused))


if __name__ == "__main__":
    main()
