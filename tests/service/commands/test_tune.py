"""The command as one types it, and the service that uses what it keeps."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_store.stored_model import StoredModel
from service.runtime import Runtime
from service.tuning.profile import load
from tests.end_to_end.conftest import ROOT
from tests.end_to_end.test_documents import commands
from tests.service.conftest import TinyModel, a_gate, a_png, publish_tiny, serving

from .conftest import settings_of, store

PROGRAM = ".venv/bin/python -m service tune "
QUICK = ["--seconds", "0.02", "--rounds", "1"]
EASY = ["--p99-ms", "1000000"]


def environment(**settings: str) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("RESNET_")}
    return others | {"PYTHONPATH": str(ROOT)} | {f"RESNET_{name.upper()}": value for name, value in settings.items()}


def tune(*arguments: str | Path, cwd: Path | None = None, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service", "tune", *map(str, arguments)],
        cwd=cwd,
        env=environment(**settings),
        capture_output=True,
        text=True,
        check=False,
    )


def failed(done: subprocess.CompletedProcess[str], status: int = 2) -> str:
    """The one line of an error."""
    assert done.returncode == status, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert not done.stdout
    return line


def profiles(stored: StoredModel) -> list[Path]:
    return sorted((stored.folder.parent / "profiles").glob("*"))


# The whole way


def test_what_is_measured_is_kept_and_the_service_uses_it(
    stored: StoredModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = tmp_path / "photos"
    images.mkdir()
    for number in range(3):
        (images / f"{number}.png").write_bytes(a_png(number))
    picture = tmp_path / "plot.svg"
    done = tune("tiny", "--store", store(stored), "--images", images, "--plot", picture, *QUICK, *EASY)
    assert done.returncode == 0, done.stderr
    assert "3 images of photos: at most " in done.stderr
    assert "images/s against p99" in done.stdout
    assert picture.stat().st_size > 1000
    (path,) = profiles(stored)
    assert f"profile   {path}" in done.stdout
    profile = load(path)
    assert profile.key.cores >= 1
    assert profile.meets_goal
    chosen = profile.choice
    assert f"RESNET_PROVIDER={chosen.provider} RESNET_PRECISION={chosen.precision}" in done.stdout

    async def use(runtime: Runtime) -> None:
        (pipeline,) = runtime.models
        assert (pipeline.session.provider, pipeline.session.variant.precision) == (chosen.provider, chosen.precision)
        assert pipeline.session.slots == chosen.slots
        assert pipeline.max_batch == chosen.max_batch
        assert (pipeline._decode_pool is None) == (chosen.decode_threads == 0)
        assert runtime.profiles == [profile]
        assert await pipeline.run(a_png(), pipeline.top(1), float("inf"))

    with caplog.at_level("INFO", "service"):
        serving(settings_of(stored), use)
    assert f"model tiny version 1: profile of {profile.date} (" in caplog.text


def test_what_was_fixed_while_tuning_is_no_profile_for_a_start_without(
    stored: StoredModel, caplog: pytest.LogCaptureFixture
) -> None:
    done = tune("tiny", "--store", store(stored), *QUICK, *EASY, provider="cpu", slots="1")
    assert done.returncode == 0, done.stderr
    assert "from its next start with RESNET_PROVIDER=cpu RESNET_SLOTS=1\n" in done.stdout

    async def unused(runtime: Runtime) -> None:
        assert runtime.profiles == [None]

    async def used(runtime: Runtime) -> None:
        assert runtime.profiles != [None]

    serving(settings_of(stored), unused)
    assert " ignored: measured with RESNET_PROVIDER=cpu, which is not set" in caplog.text
    serving(settings_of(stored, provider="cpu", slots=1), used)


# The command


def test_json(stored: StoredModel) -> None:
    done = tune("tiny@1", "--json", *QUICK, *EASY, model_store=str(store(stored)), provider="cpu")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["meets_goal"] is True
    (path,) = profiles(stored)
    assert told["path"] == str(path)
    assert told["profile"] == json.loads(path.read_text())
    assert {trial["choice"]["provider"] for trial in told["trials"]} == {"cpu"}
    assert {trial["choice"]["precision"] for trial in told["trials"]} == {"fp32", "int8"}
    assert "images/s against p99" in done.stderr


def test_where_nothing_meets_the_goal_the_nearest_is_kept_and_the_status_is_1(stored: StoredModel) -> None:
    done = tune("tiny", "--store", store(stored), "--p99-ms", "0.000001", *QUICK, provider="cpu", slots="1")
    assert done.returncode == 1, done.stderr
    assert "the goal of 1e-06 ms is not met" in done.stdout
    (path,) = profiles(stored)
    assert not load(path).meets_goal


def test_an_ungated_variant_is_measured_only_by_name(tmp_path: Path) -> None:
    others = {"int8": (TinyModel(seed=1), a_gate("off", passed=False))}
    stored = publish_tiny(tmp_path, others=others)  # type: ignore[arg-type]
    for named, measured in (("auto", {"fp32"}), ("int8", {"int8"})):
        done = tune("tiny", "--store", tmp_path, "--json", *QUICK, *EASY, provider="cpu", slots="1", precision=named)
        assert {trial["choice"]["precision"] for trial in json.loads(done.stdout)["trials"]} == measured
    assert len(profiles(stored)) == 2


def test_profiles_elsewhere(stored: StoredModel, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    done = tune("tiny", "--store", store(stored), *QUICK, *EASY, provider="cpu", slots="1", profiles=str(kept))
    assert done.returncode == 0, done.stderr
    assert len(list((kept / "tiny").iterdir())) == 1
    assert not profiles(stored)


def test_a_store_that_cannot_be_written_is_told_before_anything_is_measured(stored: StoredModel) -> None:
    (stored.folder.parent / "profiles").touch()
    line = failed(tune("tiny", "--store", store(stored), *QUICK))
    assert "RESNET_PROFILES=DIR keeps profiles elsewhere" in line


@pytest.mark.parametrize(
    ("arguments", "settings", "told"),
    [
        (["nobody"], {}, "no model 'nobody'"),
        (["tiny@7"], {}, "no version 7"),
        (["tiny", "--images", "missing"], {}, "missing: no such folder or zip file"),
        (["tiny", "--p99-ms", "0"], {}, "--p99-ms"),
        (["tiny", "--rounds", "0"], {}, "--rounds"),
        (["tiny", "--what"], {}, "--what"),
        ([], {}, "MODEL"),
        (["tiny", "--plot", "plot.txt"], {}, "--plot"),
        (["tiny"], {"slots": "many"}, "RESNET_SLOTS='many'"),
        (["tiny"], {"profiles": "off"}, "RESNET_PROFILES=off"),
        (["tiny"], {"precision": "fp16"}, "no fp16 variant"),
        (["tiny"], {"provider": "tensorrt"}, "no NVIDIA "),
    ],
)
def test_errors_are_one_line(stored: StoredModel, arguments: list[str], settings: dict[str, str], told: str) -> None:
    assert told in failed(tune(*arguments, **({"model_store": str(store(stored))} | settings)))
    assert not profiles(stored)


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_keeps_nothing(stored: StoredModel, by: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "service", "tune", "tiny", "--store", str(store(stored)), "--seconds", "600"],
        env=environment(provider="cpu"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert "of measuring" in process.stderr.readline()
        process.send_signal(by)
        out, error = process.communicate()
    assert process.returncode == 130, error
    assert error.splitlines()[-1] == "error: interrupted; no profile was written"
    assert not out
    assert not profiles(stored)


def test_help() -> None:
    done = tune("--help")
    assert done.returncode == 0
    assert re.search(r"python -m service tune \[OPTIONS\] MODEL", done.stdout)


# The documents


def documented() -> list[str]:
    return [line.removeprefix(PROGRAM) for line in commands() if line.startswith(PROGRAM)]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder with what the documents' commands name."""
    for name in ("cifar10-resnet16", "mine"):
        publish_tiny(tmp_path / "models", name)
    (tmp_path / "photos").mkdir()
    shutil.copy(ROOT / "docs" / "images" / "ship.jpg", tmp_path / "photos")
    return tmp_path


def test_there_are_documented_commands() -> None:
    assert len(documented()) >= 2


@pytest.mark.parametrize("command", documented())
def test_a_documented_command(command: str, place: Path) -> None:
    words = shlex.split(command.replace("MODEL", "mine"))
    done = tune(*words, *QUICK, *EASY, cwd=place, model_store=str(place / "models"), provider="cpu")
    assert done.returncode == 0, done.stderr
    assert len(list(place.glob("models/*/profiles/*.json"))) == 1
