"""The engine on Ray Data: an actor for each share of a machine's cores, a part at a time.

Ray takes a part to another actor where one dies with its machine; its file is then written once more, under the same
name. All machines must reach the inputs, the output and the model store by the same paths or URLs.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from typing import Any, Final

from service.bulk.conveyor import Conveyor
from service.bulk.local import Tell, write
from service.bulk.output import Output, Run, schema
from service.bulk.parts import BulkError
from service.bulk.scorer import Scorer, find_model
from service.config import Settings
from service.process.cpus import available_cpus
from service.process.workers import CORES_PER_WORKER

_OBJECT_STORE_BYTES: Final = 256 * 2**20
"""Of a Ray started here: all that passes through it are numbers of parts and counts."""


class PartScorer:
    """What an actor does: the file of each part that it is told."""

    def __init__(self, run: Run, output: str, settings: Settings, cores: int) -> None:
        self._output = Output(output)
        stored = find_model(settings, f"{run.model}@{run.version}")
        # By name, so that a machine that cannot have them fails instead of computing something else.
        same = settings.inference.model_copy(update={"provider": run.provider, "precision": run.precision})
        settings = settings.model_copy(update={"inference": same})
        self._scorer = Scorer(settings, stored, run.top_k, run.embed, cores)
        self._conveyor = Conveyor(self._scorer)
        self._columns = schema(run, self._scorer)

    def __call__(self, row: dict[str, Any]) -> dict[str, int]:
        """How many images the part has, and how many of them failed, once its file is there."""
        part = self._output.planned(int(row["number"]))
        if (found := self._output.found(part.number)) is not None:
            return found  # written by an actor that was lost before it could say so
        counts = Counter(images=0, failed=0)
        scored = self._conveyor.run((None, item) for item in part.items(self._scorer.max_bytes))
        write(
            part,
            (row for _, row in scored),
            self._output,
            self._columns,
            lambda images, failed: counts.update(images=images, failed=failed),
        )
        return dict(counts)


def run(run: Run, output: Output, settings: Settings, address: str | None, tell: Tell) -> None:
    """Compute and write what of the plan is not there yet, on the cluster at ``address`` or one started here."""
    # Ray reports its use unless told not to, and it is told when it is imported.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise BulkError("--engine ray needs Ray: pip install 'ray[data]'") from error

    if address is None:
        ray.init(
            num_cpus=available_cpus(),
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    else:
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError) as error:
            raise BulkError(f"--ray-address {address}: {error}") from error
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        cores, actors = _share([int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]])
        numbers = [{"number": number} for number in output.pending_numbers()]
        scored = ray.data.from_items(numbers, override_num_blocks=len(numbers)).map(
            PartScorer,
            fn_constructor_args=(run, output.url, settings, cores),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors, max_tasks_in_flight_per_actor=2),
            num_cpus=cores,
        )
        for counts in scored.iter_rows():
            tell(counts["images"], counts["failed"])
    finally:
        ray.shutdown()


def _share(nodes: list[int]) -> tuple[int, int]:
    """Cores for an actor, as many as every machine has, and how many actors that makes."""
    cores = min([CORES_PER_WORKER, *(cpus for cpus in nodes if cpus)])
    return cores, max(1, sum(cpus // cores for cpus in nodes))
