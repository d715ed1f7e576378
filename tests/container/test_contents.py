"""What is in the image, and what is not."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_store.store import EMBEDDED_MODELS
from service import __version__
from tests.container.engine import BASE, Engine

pytestmark = pytest.mark.container

LARGEST_BYTES = 600_000_000
COMPILERS = {"gcc", "g++", "cc", "c++", "cpp", "clang", "ld", "as", "make", "rustc", "cargo", "go"}
SITE_PACKAGES = Path("opt/venv/lib/python3.11/site-packages")


@pytest.fixture(scope="module")
def files(engine: Engine, image: str) -> Iterator[Path]:
    with engine.files(image) as found:
        yield found


def walk(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        yield from (Path(folder) / name for name in names)


def megabytes(folder: Path) -> float:
    return sum(path.lstat().st_size for path in walk(folder)) / 1e6


def test_it_is_small(engine: Engine, image: str, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, base = (int(engine.inspect(name)["Size"]) for name in (image, BASE))
    packages = sorted(((megabytes(path), path.name) for path in (files / SITE_PACKAGES).iterdir()), reverse=True)
    with capsys.disabled():  # figures for docs/deployment.md
        print(f"\nimage {whole / 1e6:.0f} MB: base {base / 1e6:.0f} MB, {megabytes(files / 'opt'):.0f} MB of packages")
        print(", ".join(f"{name} {size:.0f}" for size, name in packages[:12]))
    assert whole < LARGEST_BYTES


def test_nothing_gives_other_rights(files: Path) -> None:
    rights = [path for path in walk(files) if path.lstat().st_mode & (stat.S_ISUID | stat.S_ISGID)]
    assert not [path for path in rights if not path.is_symlink()]


def test_no_compiler_no_installer_no_cache(files: Path) -> None:
    programs = {path.name for place in ("bin", "sbin", "usr", "opt") for path in walk(files / place) if _runs(path)}
    assert "python3" in programs
    assert not programs & COMPILERS
    assert not [name for name in programs if name.startswith("pip")]
    modules = {path.name.partition("-")[0] for found in files.rglob("*-packages") for path in found.iterdir()}
    assert {"numpy", "bentoml"} <= modules
    assert not {"pip", "setuptools", "wheel"} & modules
    assert not list(files.rglob("ensurepip"))
    assert not list(files.rglob("pip-*.whl"))
    assert not list((files / "root").rglob("*cache*"))
    assert not (files / "build").exists()
    assert not list((files / "tmp").iterdir())


def _runs(path: Path) -> bool:
    return path.parent.name in ("bin", "sbin") and os.access(path, os.X_OK)


def test_no_secret_of_the_build(files: Path) -> None:
    for place in ("etc/pip.conf", "run/secrets"):
        path = files / place
        assert not path.exists() or not (path.stat().st_size if path.is_file() else list(path.iterdir()))


def test_the_service_is_readable_by_anybody_and_writable_by_nobody(files: Path) -> None:
    app = [files / "app", *(files / "app").rglob("*")]
    assert len(app) > 100
    for path in app:
        mode = path.stat().st_mode
        assert mode & stat.S_IROTH, path
        assert not mode & (stat.S_IWGRP | stat.S_IWOTH), path
        assert path.stat().st_uid == 0
    assert {path.name for path in (files / "app").iterdir()} == {"healthcheck.py", "service", "model_store"}
    stored = files / "app" / EMBEDDED_MODELS.relative_to(EMBEDDED_MODELS.parents[1])
    assert [path.name for path in stored.iterdir()] == [path.name for path in EMBEDDED_MODELS.iterdir()]


def test_everything_is_compiled(files: Path) -> None:
    """Nothing can be written later, so every start would compile it anew."""
    program = files / "app" / "healthcheck.py"  # what is run by its name never is
    sources = set((files / "app").rglob("*.py")) - {program}
    compiled = {path.parent.parent / f"{path.name.partition('.')[0]}.py" for path in (files / "app").rglob("*.pyc")}
    assert sources == compiled


def test_what_it_says_of_itself(engine: Engine, image: str) -> None:
    config = engine.inspect(image)["Config"]
    assert config["User"] == "10001:10001"
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    assert config["Labels"]["org.opencontainers.image.base.name"] == BASE
    assert "3000/tcp" in config["ExposedPorts"]
