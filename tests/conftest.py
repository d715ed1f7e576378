"""Shared by all tests: the folder of real data, Hypothesis' profiles."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.cifar import EVERY, LabelledImages, images_of
from tests.lanes import pytest_collection_modifyitems as pytest_collection_modifyitems
from tests.lanes import pytest_terminal_summary as pytest_terminal_summary

# Without a deadline, as the machine may be busy; the same examples every time. More: --hypothesis-profile=explore.
_COMMON = {"deadline": None, "database": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", max_examples=60, derandomize=True, **_COMMON)
settings.register_profile("explore", max_examples=2000, derandomize=False, **_COMMON)
settings.load_profile("default")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real images and checkpoints, which is no part of the repository."""
    folder = Path(__file__).parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(f"{folder.name}/data is not beside the repository")
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all-images", action="store_true", help=f"measure accuracy on all test images, not on every {EVERY}th"
    )


@pytest.fixture(scope="session")
def cifar_test(
    shared: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> LabelledImages:
    """CIFAR-10's test images; with ``--all-images`` all of them."""
    archive = shared / "data" / "cifar10-test.zip"
    part = tmp_path_factory.mktemp("cifar") / archive.name
    return images_of(archive, part, whole=request.config.getoption("--all-images"))
