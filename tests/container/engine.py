"""buildah, podman and runc on a storage of their own, which is removed at the end."""

from __future__ import annotations

import ast
import configparser
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BASE = "localhost/base:bookworm"
# What no image needs, as in Debian's own slim images.
_BULK = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/lintian")
_LEFT = ("var/cache", "var/lib/apt/lists", "var/log")
_TOOLS = ("buildah", "podman", "runc", "debootstrap")


def why_not() -> str | None:
    """Why containers cannot be built and run here; None where they can."""
    if sys.platform != "linux":
        return "containers need Linux"
    if os.geteuid() != 0:
        return "buildah and debootstrap are run as root, and this user is not"
    if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        return f"not installed: {', '.join(missing)} (Debian: apt-get install {' '.join(missing)})"
    return None


def _run(*command: str | Path, timeout_s: float = 600) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-8000:]}{done.stderr[-4000:]}"
    return done.stdout


def base_archive() -> Path:
    """A small Debian 12 with its Python 3.11, as a tar file that later runs find again."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "resnet-serving-container"
    archive = cache / "bookworm.tar"
    if archive.exists():
        return archive
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        root = Path(folder) / "root"
        packages = "--include=python3,python3-venv,ca-certificates"
        _run("debootstrap", "--variant=minbase", packages, "bookworm", root, timeout_s=1800)
        for unneeded in (*_BULK, *_LEFT):
            for found in (root / unneeded).iterdir():
                shutil.rmtree(found) if found.is_dir() and not found.is_symlink() else found.unlink()
        made = Path(folder) / "base.tar"
        with tarfile.open(made, "w", format=tarfile.GNU_FORMAT) as tar:
            tar.add(root, arcname=".")
        made.replace(archive)
    return archive


def pip_secrets(folder: Path) -> list[str]:
    """The build's way to a package index: this machine's pip settings, and the certificate they name."""
    said = {}
    listed = _run(sys.executable, "-m", "pip", "config", "list").splitlines()
    for line in sorted(listed, key=lambda line: line.startswith(":env:")):  # the environment has the last word
        name, _, value = line.partition("=")
        said[name.rpartition(".")[2]] = str(ast.literal_eval(value))
    kept = {name: said[name] for name in ("index-url", "trusted-host", "proxy", "cert") if name in said}
    more = " ".join(url for url in said.get("extra-index-url", "").split() if not url.startswith("file:"))
    kept |= {"extra-index-url": more} if more else {}
    certificate = kept.get("cert")
    if certificate is not None:
        kept["cert"] = "/run/secrets/ca.pem"
    settings = configparser.RawConfigParser()
    settings["global"] = {"timeout": "180", **kept}
    with (folder / "pip.conf").open("w") as file:
        settings.write(file)
    secrets = ["--secret", f"id=pip.conf,src={folder / 'pip.conf'}"]
    return [*secrets, "--secret", f"id=ca.pem,src={certificate}"] if certificate is not None else secrets


class Engine:
    """buildah and podman on one storage below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # vfs copies whole layers, and works wherever there is a disk.
        storage = ["--root", f"{folder}/storage", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
        self._buildah = ["buildah", *storage]
        manager = ["--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]
        self._podman = ["podman", *storage, *manager]

    def podman(self, *words: str | Path, timeout_s: float = 300) -> str:
        return _run(*self._podman, *words, timeout_s=timeout_s)

    def code(self, *words: str) -> int:
        """The exit status of a podman command that may fail."""
        return subprocess.run([*self._podman, *words], capture_output=True, timeout=300, check=False).returncode

    def logs(self, name: str) -> str:
        """What a container printed, its errors too."""
        done = subprocess.run(
            [*self._podman, "logs", name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        return done.stdout

    def build(self, words: Sequence[str]) -> None:
        """``docker build`` with these arguments, from the checkout, on our base."""
        base = _run(*self._podman, "import", base_archive(), BASE).strip()
        assert base
        # chroot: needs no rights but root's. The image's format: OCI's has no HEALTHCHECK.
        options = ["--isolation", "chroot", "--format", "docker", "--build-arg", f"BASE_IMAGE={BASE}"]
        secrets = pip_secrets(self._folder)
        _run(*self._buildah, "bud", *options, *secrets, *words, timeout_s=1800)

    def inspect(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.podman("inspect", name))[0]
        return found

    @contextmanager
    def files(self, image: str) -> Iterator[Path]:
        """The folder with an image's files."""
        yield Path(self.podman("image", "mount", image).strip())
        self.podman("image", "umount", image)

    def remove(self) -> None:
        """Every container and the whole storage."""
        self.podman("rm", "--all", "--force", "--time", "0")
        self.podman("image", "umount", "--all", "--force")
        shutil.rmtree(self._folder)
