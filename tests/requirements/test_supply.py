"""What is shipped: its licences, its bill of materials, its audit, its one version."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from requirements import audit, licenses, sbom
from requirements.locked import FOLDER, Locked, read_lock
from service import __version__
from service.http.debug import _PACKAGES
from service.inference_protocol.metadata import SERVER

ROOT = Path(__file__).parents[2]
LOCK = FOLDER / "cpu.lock"


def names_in_the_lock() -> set[str]:
    """Read without the code under test; those with a marker are left out."""
    return set(re.findall(r"^([a-z0-9-]+)==[^\s;]+ \\$", LOCK.read_text(), re.MULTILINE))


# Licences


@pytest.mark.parametrize("expression", ["MIT", "Apache-2.0 OR GPL-3.0-only", "MPL-2.0 AND (Apache-2.0 OR MIT)"])
def test_allowed_licences(expression: str) -> None:
    assert licenses.is_allowed(expression)


@pytest.mark.parametrize(
    "expression", ["GPL-3.0-only", "MIT AND AGPL-3.0-only", "LGPL-2.1-only OR GPL-2.0-only", "BUSL-1.1"]
)
def test_licences_that_are_not(expression: str) -> None:
    assert not licenses.is_allowed(expression)


def test_every_shipped_package_has_an_allowed_licence(tmp_path: Path) -> None:
    result = CliRunner().invoke(licenses.main, ["--out", str(tmp_path / "build" / "licenses.md")])
    assert result.exit_code == 0, result.output
    rows = (tmp_path / "build" / "licenses.md").read_text().splitlines()[2:]
    assert names_in_the_lock() <= {row.split(" | ")[0].removeprefix("| ") for row in rows}
    assert "unknown" not in "".join(rows)


@pytest.mark.parametrize(("known", "said"), [("GPL-3.0-only", "GPL-3.0-only"), (None, "a secret one")])
def test_one_that_is_not_allowed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: str | None, said: str
) -> None:
    monkeypatch.setattr(licenses, "read_lock", lambda lock: [Locked("bad", "1", known, said, "bad==1")])
    result = CliRunner().invoke(licenses.main, ["--out", str(tmp_path / "licenses.md")])
    assert result.exit_code == 1
    assert f"bad 1: licence not allowed: {said}" in result.output


def test_markers_are_kept(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    lock.write_text(
        "# a comment\nclick==8.1.0 ; sys_platform == 'linux' \\\n    --hash=sha256:ab\n"
        "nowhere==1 ; python_full_version < '3' \\\n    --hash=sha256:cd\nno-such-package==2 \\\n    --hash=sha256:ef\n"
    )
    found = list(read_lock(lock))
    assert [(p.name, p.version, p.license) for p in found] == [
        ("click", "8.1.0", "BSD-3-Clause"),
        ("no-such-package", "2", None),
    ]
    assert found[0].line.endswith("--hash=sha256:ab")


# The bill of materials


@pytest.fixture(scope="module")
def bill() -> dict[str, Any]:
    """Made and checked against CycloneDX's own schema."""
    return sbom.make(LOCK)


@pytest.mark.slow
def test_the_bill_has_every_shipped_package(bill: dict[str, Any]) -> None:
    assert bill["bomFormat"] == "CycloneDX"
    components = {component["name"]: component for component in bill["components"]}
    assert names_in_the_lock() <= set(components)
    for component in components.values():
        (distribution,) = component["externalReferences"]
        assert distribution["hashes"]
        assert {digest["alg"] for digest in distribution["hashes"]} == {"SHA-256"}
        assert component["purl"] == f"pkg:pypi/{component['name']}@{component['version']}"
        assert component["licenses"]


@pytest.mark.slow
def test_the_bill_names_the_product(bill: dict[str, Any]) -> None:
    about = bill["metadata"]["component"]
    assert (about["name"], about["version"]) == ("resnet-serving", __version__)
    (root,) = (d for d in bill["dependencies"] if d["ref"] == about["bom-ref"])
    assert len(root["dependsOn"]) == len(bill["components"])


@pytest.mark.slow
def test_the_bill_is_the_same_each_time(bill: dict[str, Any]) -> None:
    assert sbom.make(LOCK) == bill
    assert str(ROOT) not in json.dumps(bill)


# The audit


def package(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "version": "1"} | fields


VULNERABLE = package("b", vulns=[{"id": "PYSEC-1", "fix_versions": ["2"]}])


@pytest.mark.parametrize(
    ("packages", "status", "words"),
    [
        ([package("a", vulns=[])], 0, "1 packages audited"),
        ([package("a", vulns=[]), VULNERABLE], audit.FOUND, "b 1: PYSEC-1, fixed in 2"),
        ([package("a", vulns=[]), package("c", skip_reason="gone")], 0, "not audited, unknown to .*: c"),
        ([package("c", skip_reason="gone")], audit.NOT_DONE, "no audit"),
    ],
)
def test_an_audit_of_nothing_is_no_success(packages: list[Any], status: int, words: str) -> None:
    found, lines = audit.judge({"dependencies": packages})
    assert found == status
    assert re.search(words, "\n".join(lines))


def test_an_audit_that_could_not_be_done_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    def unreachable(lock: Path) -> audit.Report:
        raise OSError("no such host")

    assert audit.audit([LOCK], unreachable) == audit.NOT_DONE
    assert capsys.readouterr().out == "cpu.lock: no audit: no such host\n"
    found = iter([{"dependencies": [VULNERABLE]}, {"dependencies": [package("c", skip_reason="gone")]}])
    assert audit.audit([LOCK, LOCK], lambda lock: next(found)) == audit.FOUND


@pytest.mark.slow
def test_no_shipped_package_has_a_known_vulnerability() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "requirements.audit", str(LOCK)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode == audit.NOT_DONE:
        pytest.skip(f"the audit cannot be done here; `make audit` does it where it can: {done.stdout.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr


# The version


def pins(lock: str) -> set[str]:
    return set(re.findall(r"^[a-z0-9._-]+==[^ ]+", (FOLDER / lock).read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("lock", ["cpu.lock", "gpu.lock", "gpu-dev.lock", "remote.lock", "init.lock"])
def test_what_is_shipped_is_what_is_tested(lock: str) -> None:
    """All lock files have the versions of dev.lock, but for NVIDIA's: PyTorch wants others than onnxruntime-gpu."""
    tested = pins("dev.lock")
    names = {pin.partition("==")[0] for pin in tested}
    others = {pin for pin in pins(lock) - tested if pin.partition("==")[0] in names}
    assert not {pin for pin in others if not pin.startswith("nvidia-")}


def test_there_is_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "service.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert SERVER.version == __version__
    assert "resnet-serving" not in _PACKAGES, "asked of the service, not of what is installed"


def test_python_is_the_one_that_is_tested() -> None:
    """The lock files are for 3.11 and later, but no other interpreter has run the tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["requires-python"] == ">=3.11,<3.12"
