"""`make release-check`, as far as it goes without an hour: in a clone, with this environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from service import __version__

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=Test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The checkout as it is, committed, with a changelog that speaks of no release."""
    folder = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--no-hardlinks", str(ROOT), str(folder))
    for path in (".ci/release-check", "Makefile", "pyproject.toml"):
        (folder / path).write_bytes((ROOT / path).read_bytes())
    log(folder, "## Unreleased\n")
    return folder


def log(folder: Path, text: str) -> None:
    (folder / "CHANGELOG.md").write_text(f"# Changelog\n\n{text}")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", "Changelog")


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "VENV": sys.prefix}
    command = [".ci/release-check", "--quick"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_version_without_an_entry_is_not_released(clone: Path) -> None:
    done = check(clone)
    assert done.returncode == 1
    assert done.stderr == f"release-check: CHANGELOG.md has no entry for {__version__}\n"


def test_a_version_beside_entries_that_are_unreleased_is_not_released(clone: Path) -> None:
    log(clone, f"## Unreleased\n\n### Fixed\n\n- A mistake.\n\n## {__version__} - 2026-01-01\n")
    done = check(clone)
    assert done.returncode == 1
    told = f"CHANGELOG.md has entries under Unreleased, which {__version__} would bring unsaid"
    assert done.stderr == f"release-check: {told}\n"


def test_the_steps_name_every_file_that_says_the_version() -> None:
    steps = (ROOT / "docs" / "upgrading.md").read_text(encoding="utf-8").partition("## How a release is made")[2]
    files = [*(ROOT / "docker").glob("Dockerfile*"), *(ROOT / "deploy").rglob("*.yaml")]
    line = re.compile(rf"^(ARG VERSION=|\s+newTag: ){re.escape(__version__)}$", re.MULTILINE)
    say = [path for path in files if line.search(path.read_text(encoding="utf-8"))]
    assert len(say) >= 5
    assert not [path for path in say if f"`{path.relative_to(ROOT)}`" not in steps]


def test_all_else_is_looked_at(clone: Path) -> None:
    log(clone, f"## Unreleased\n\n## {__version__} - 2026-01-01\n\n### Added\n\n- Everything.\n")
    done = check(clone)
    assert "packages of resnet-serving" in done.stdout
    assert "0 with a licence that is not allowed" in done.stdout
    assert "packages audited" in done.stdout or "no audit" in done.stdout
    if "no audit" in done.stdout:  # a release without an audit is none
        assert done.returncode == 1
        assert "could not be done" in done.stderr
    elif done.returncode == 0:
        assert done.stdout.endswith(f"ready: {__version__}\n")
    assert (ROOT / "Makefile").read_text().count(".ci/release-check") == 1


def serves_on(python: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([".ci/serves-on", python], cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_python_that_is_not_there() -> None:
    done = serves_on("python3.99")
    assert (done.returncode, done.stderr) == (1, "serves-on: python3.99 is not found\n")


def test_what_serving_needs_installs_on_the_next_python_and_answers() -> None:
    found = os.environ.get("PYTHON312", "python3.12")
    done = serves_on(found)
    if done.stderr == f"serves-on: {found} is not found\n":
        pytest.skip(f"{found} is not installed; PYTHON312 names another")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.endswith("serves: docs/images/ship.jpg is a ship\n")
