"""Who may import whom, and other rules that hold for the whole source."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("service", "export", "model_store")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def of(package: str) -> list[Path]:
    return [path for path in MODULES if path.is_relative_to(ROOT / package)]


def where(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[str]:
    """Full names of all that ``path`` imports, anywhere in it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{where(path)}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def packages_of(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.Call))


def test_there_is_something_to_check() -> None:
    assert all(of(package) for package in PACKAGES)


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("model_store", {"service", "export", "torch", "torchvision", "bentoml"}),
        ("service", {"export", "torch", "torchvision", "onnx", "onnxscript", "tests"}),
        ("export", {"service", "bentoml", "tests"}),
    ],
)
def test_packages_do_not_import(package: str, forbidden: set[str]) -> None:
    found = {where(path): packages_of(path) & forbidden for path in of(package)}
    assert not {path: names for path, names in found.items() if names}


def test_only_the_app_imports_bentoml() -> None:
    assert [where(path) for path in MODULES if "bentoml" in packages_of(path)] == ["service/app.py"]


def test_the_client_and_the_serving_side_are_apart() -> None:
    """The client starts fast, and where nothing but httpx, click, rich, pydantic and orjson is installed."""
    client, shared = "service.client", "model_store.command_line"
    for path in of("service"):
        inside = path.is_relative_to(ROOT / "service" / "client")
        own = {name for name in imports(path) if name.partition(".")[0] in PACKAGES}
        of_client = {name for name in own if f"{name}.".startswith(f"{client}.")}
        of_both = {name for name in own if f"{name}.".startswith(f"{shared}.")}
        assert not (own - of_client - of_both if inside else of_client), where(path)


_IMPORT_THE_CLIENT = """
import sys
{how}
heavy = {{"onnxruntime", "bentoml", "numpy", "PIL", "pyarrow", "starlette"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
store = {{name for name in sys.modules if name.partition(".")[0] == "model_store"}}
light = "model_store.command_line"
of_light = {{f"{{light}}.{{name}}" for name in ("matches", "program", "progress")}}
assert store == {{"model_store", "model_store.errors", light, *of_light}}, store
"""
_AS_COMMAND = """
from click.testing import CliRunner
from service.__main__ import cli
done = CliRunner().invoke(cli, ["client", "predict", "--help"])
assert done.exit_code == 0 and "FILES" in done.stdout, done.output
"""


@pytest.mark.parametrize("how", ["import service.client.command.main", _AS_COMMAND])
def test_the_client_starts_light(how: str) -> None:
    program = _IMPORT_THE_CLIENT.format(how=how)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_nothing_is_pickled() -> None:
    """Loading a pickle runs whatever code its author put there."""
    dangerous = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    assert not [where(path) for path in MODULES if packages_of(path) & dangerous]
    for path in MODULES:
        for call in calls(path):
            for keyword in call.keywords:
                if keyword.arg == "allow_pickle":
                    assert isinstance(keyword.value, ast.Constant), where(path)
                    assert keyword.value.value is False, where(path)


def test_torch_loads_weights_only() -> None:
    found = 0
    for path in MODULES:
        assert "torch.load" not in set(imports(path)), f"{where(path)}: torch.load by another name"
        for call in calls(path):
            if ast.unparse(call.func) in ("torch.load", "torch.serialization.load"):
                found += 1
                given = {keyword.arg: keyword.value for keyword in call.keywords}
                flag = given.get("weights_only")
                assert isinstance(flag, ast.Constant), f"{where(path)}:{call.lineno}"
                assert flag.value is True, f"{where(path)}:{call.lineno}"
    assert found, "the check looks for something that is not there"


def _environment_uses(path: Path) -> Iterator[tuple[int, bool]]:
    """Line of each use of the environment, and whether it is a plain ``os.environ[...] = ...``."""
    parsed = tree(path)
    writes = {
        id(target.value)
        for node in ast.walk(parsed)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Subscript)
    }
    for node in ast.walk(parsed):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.environb"):
            yield node.lineno, id(node) in writes
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.getenv", "os.getenvb", "os.putenv"):
            yield node.lineno, False
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            assert not {"environ", "getenv", "environb"} & {alias.name for alias in node.names}, where(path)


def test_only_config_reads_the_environment() -> None:
    readers = {where(path) for path in of("service") for _, write in _environment_uses(path) if not write}
    assert readers == {"service/config.py"}
    writers = [where(path) for path in of("service") for _, write in _environment_uses(path) if write]
    may = {"service/__init__.py", "service/app.py", "service/bulk/cluster.py", "service/commands/serve.py"}
    may |= {"service/providers/gpu.py"}
    assert set(writers) == may
    assert not [where(path) for path in of("model_store") for _ in _environment_uses(path)]


def test_modules_stay_readable() -> None:
    long = {where(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert not {path: lines for path, lines in long.items() if lines > 310}


def test_every_module_says_what_it_is() -> None:
    assert not [where(path) for path in MODULES if not ast.get_docstring(tree(path))]


_IMPORT_THE_APP = """
import sys
import service.app
never = ("torch", "torchvision", "onnx", "export", "grpc")  # the last without a port for it
wrong = sorted(name for name in sys.modules if name.partition(".")[0] in never)
assert not wrong, wrong
"""


def test_the_running_service_holds_no_torch() -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RESNET_")}
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT_THE_APP],
        cwd=ROOT,
        env=environ | {"BENTOML_DO_NOT_TRACK": "True"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_wrong_setting_ends_the_service_in_one_line() -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RESNET_")}
    done = subprocess.run(
        [sys.executable, "-c", "import service.app"],
        cwd=ROOT,
        env=environ | {"RESNET_MAX_BATCH": "many"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("resnet-serving: RESNET_MAX_BATCH='many': ")
    assert len(done.stderr.splitlines()) == 1


_LOOK_AFTER_A_STORE = """
import sys
for name in ("torch", "torchvision", "onnx", "onnxscript", "matplotlib", "jinja2", "safetensors"):
    sys.modules[name] = None
sys.argv = ["export", "list", "models"]
import runpy
import export.commands.versions
runpy.run_module("export", run_name="__main__")
"""


_VARIANTS = """
import sys
for name in ("torch", "torchvision", "onnxscript", "safetensors"):
    sys.modules[name] = None
import export.commands.quantize
"""


def test_variants_are_made_without_pytorch() -> None:
    """On machines with a GPU, where onnxruntime-gpu and PyTorch want different versions of cuDNN."""
    done = subprocess.run(
        [sys.executable, "-c", _VARIANTS], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_store_is_looked_after_where_only_serving_is_installed() -> None:
    """Promoting the version before is the way back: it must not want PyTorch first."""
    done = subprocess.run(
        [sys.executable, "-c", _LOOK_AFTER_A_STORE], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "cifar10-resnet16" in done.stdout
