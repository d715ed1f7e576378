"""A software bill of materials of the serving environment: ``python -m requirements.sbom``, in CycloneDX's JSON.

CycloneDX's own program reads names, versions and hashes of the lock file; the licences, which no lock file has, are
added of what is installed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import click
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from requirements.locked import FOLDER, Locked, read_lock
from service import __version__

_SCHEMA: Final = SchemaVersion.V1_6


def make(lock: Path) -> dict[str, Any]:
    """The bill of what ``lock`` installs on this kind of machine; ``ValueError`` where it breaks its own schema."""
    packages = {package.name: package for package in read_lock(lock)}
    bill = _of_lines([package.line for package in packages.values()])
    for component in bill["components"]:
        _describe(component, packages[component["name"]])
    bill["metadata"]["component"] = {
        "bom-ref": "resnet-serving",
        "type": "application",
        "name": "resnet-serving",
        "version": __version__,
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }
    references = sorted(component["bom-ref"] for component in bill["components"])
    # The lock file is flat: what it has is needed, and by whom is not kept.
    bill["dependencies"] = [{"ref": "resnet-serving", "dependsOn": references}, *({"ref": r} for r in references)]
    problem = JsonStrictValidator(_SCHEMA).validate_str(json.dumps(bill))
    if problem is not None:
        raise ValueError(f"not {_SCHEMA.to_version()} of CycloneDX: {problem}")
    return bill


def _of_lines(lines: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, "lock.txt"), Path(folder, "sbom.json")
        path.write_text("\n".join(lines), encoding="utf-8")
        command = [sys.executable, "-m", "cyclonedx_py", "requirements", str(path), "--output-reproducible"]
        command += ["--spec-version", _SCHEMA.to_version(), "--of", "JSON", "-o", str(out)]
        subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - ours  # nosec B603
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return found


def _describe(component: dict[str, Any], package: Locked) -> None:
    component.pop("description")  # the line of the lock file
    component["bom-ref"] = component["purl"]
    if package.license is not None:
        simple = " " not in package.license
        component["licenses"] = [{"license": {"id": package.license}} if simple else {"expression": package.license}]


@click.command()
@click.option("--lock", type=click.Path(exists=True, path_type=Path), default=FOLDER / "cpu.lock", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="Where the bill goes.")
def main(lock: Path, out: Path) -> None:
    """Write the bill of materials of LOCK."""
    bill = make(lock)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(bill, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    click.echo(f"{len(bill['components'])} packages of resnet-serving {__version__}: {out}")


if __name__ == "__main__":
    main()
