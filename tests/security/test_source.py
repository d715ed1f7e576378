"""What the source must never do, read from its syntax; and where everything that is installed comes from."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("service", "export", "model_store", "requirements", "benchmarks", "docker")
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
FORBIDDEN = {
    "eval", "exec", "compile", "__import__",
    "os.system", "os.popen", "os.tempnam", "tempfile.mktemp", "yaml.load", "yaml.unsafe_load",
    "onnx.load_external_data_for_model", "ssl._create_unverified_context", "torch.hub.load",
    "pickle.load", "pickle.loads", "marshal.loads", "jsonpickle.decode", "numpy.fromfile", "np.fromfile",
}  # fmt: skip
SAFE_VALUES = {"shell": False, "verify": True, "trust_remote_code": False, "allow_pickle": False, "weights_only": True}


def faults(source: str) -> Iterator[str]:
    """Each forbidden call in ``source``, and each dangerous keyword whose value is not plainly the safe one."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        if name in FORBIDDEN:
            yield name
        if name in ("torch.load", "torch.serialization.load") and "weights_only" not in given:
            yield f"{name} without weights_only"
        for keyword, safe in SAFE_VALUES.items():
            value = given.get(keyword)
            if value is not None and not (isinstance(value, ast.Constant) and value.value is safe):
                yield f"{keyword}={ast.unparse(value)}"


@pytest.mark.parametrize(
    "source",
    [
        "eval(x)",
        "exec(x)",
        "import os\nos.system(x)",
        "subprocess.run(x, shell=True)",
        "subprocess.run(x, shell=flag)",
        "tempfile.mktemp()",
        "httpx.get(x, verify=False)",
        "yaml.load(x)",
        "torch.load(x)",
        "torch.load(x, weights_only=False)",
        "np.load(x, allow_pickle=True)",
    ],
)
def test_each_fault_is_found(source: str) -> None:
    assert list(faults(source))


def test_the_source_has_none() -> None:
    assert len(MODULES) > 200
    found = {path.relative_to(ROOT).as_posix(): list(faults(path.read_text(encoding="utf-8"))) for path in MODULES}
    assert not {path: names for path, names in found.items() if names}


def test_every_locked_package_has_its_hashes() -> None:
    assert len(LOCKS) >= 3
    for lock in LOCKS:
        entries = re.split(r"\n(?=[a-z0-9])", lock.read_text(encoding="utf-8"))
        assert len(entries) > (1 if lock.stem == "init" else 20)
        assert not [entry[:60] for entry in entries if "--hash=sha256:" not in entry and not entry.startswith("#")]


def test_what_is_installed_is_checked_against_them() -> None:
    """Wherever packages of a lock file are installed. BentoML's own builder is told nothing about it."""
    files = [ROOT / "Makefile", *(ROOT / "docker").glob("Dockerfile*")]
    for path in files:
        lines = re.sub(r"\\\n", " ", path.read_text(encoding="utf-8")).splitlines()
        installs = [
            part for line in lines for part in line.split("&&") if re.search(r"(pip install|PIP_INSTALL\)).* -r ", part)
        ]
        assert installs, path
        assert not [part for part in installs if "--require-hashes" not in part], path


@pytest.mark.slow
def test_bandit_finds_nothing() -> None:
    """By the configuration that `make audit` uses; what is excused is excused in its line, with a reason."""
    done = subprocess.run(
        [sys.executable, "-m", "bandit", "-q", "-c", "pyproject.toml", "-r", *FOLDERS[:4]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    excused = [line for path in MODULES for line in path.read_text(encoding="utf-8").splitlines() if "# nosec" in line]
    assert all(re.search(r"# noqa: S\d+ - \w.*  # nosec B\d+$", line) for line in excused), excused
    assert len(excused) < 12
