"""A virtual environment for each set of peers' requirements, made when it is first needed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Final

REQUIREMENTS: Final = Path(__file__).parent / "requirements"
DEFAULT_FOLDER: Final = Path.home() / ".cache" / "resnet-serving-bench"
_MARK: Final = "installed.sha256"


class EnvironmentFailed(Exception):
    """The requirements could not be installed; the message has the end of pip's output."""


def ensure(name: str, folder: Path = DEFAULT_FOLDER) -> Path:
    """The Python of the environment ``name``, with exactly ``requirements/NAME.txt``; made anew where that changed."""
    wanted = REQUIREMENTS / f"{name}.txt"
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
    environment = folder / name
    python = environment / "bin" / "python"
    mark = environment / _MARK
    if mark.exists() and mark.read_text() == digest:
        return python
    _run([sys.executable, "-m", "venv", "--clear", str(environment)])
    install = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-deps"]
    _run([*install, "-r", str(wanted)])
    mark.write_text(digest)
    return python


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EnvironmentFailed(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-500:]}")
