"""The same on a real Ray cluster of two nodes, one of which dies in the middle."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from service.bulk.cluster import _share
from tests.service.commands.test_bulk import ROOT, a_tar, command, environment
from tests.service.conftest import publish_tiny

PART = 50
IMAGES = 3000


@pytest.mark.parametrize(
    ("nodes", "cores", "actors"),
    [([2], 2, 1), ([1, 1], 1, 2), ([64], 8, 8), ([0, 4, 6], 4, 2), ([], 8, 1)],
)
def test_an_actor_gets_what_every_machine_has(nodes: list[int], cores: int, actors: int) -> None:
    assert _share(nodes) == (cores, actors)


@pytest.fixture
def cluster() -> Iterator[Any]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    found = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    try:
        found.add_node(**small)
        yield found
    finally:
        found.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's own
def test_a_lost_node_loses_and_doubles_nothing(cluster: Any, tmp_path: Path) -> None:
    publish_tiny(tmp_path / "store")
    out = tmp_path / "out.parquet"
    arguments = (a_tar(tmp_path / "images.tar"), "--output", out, "--part-images", PART, "--json", "--engine", "ray")
    process = subprocess.Popen(
        command(*arguments, "--ray-address", cluster.address),
        cwd=ROOT,
        env=environment(tmp_path / "store"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(out.glob("part-*")):
        assert process.poll() is None, process.communicate()[1]
        threading.Event().wait(0.01)
    (worker,) = cluster.worker_nodes
    cluster.remove_node(worker, allow_graceful=False)
    assert len(list(out.glob("part-*"))) < IMAGES // PART, "it was over before the node could be killed"
    summary, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    assert f'"images": {IMAGES}' in summary
    keys = pyarrow.parquet.read_table(out)["key"].to_pylist()
    assert keys == [f"{number:05d}.png" for number in range(IMAGES)]
    assert not list(out.glob("_unfinished-*"))
