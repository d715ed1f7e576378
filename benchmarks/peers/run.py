"""The service beside its peers: the same network and photos, each started in turn, round after round.

    python -m benchmarks.peers run --store models --model resnet50 --checkpoint resnet50.pth

Each peer's packages are installed on demand, pinned, into an environment of its
own under --envs. Before it is timed, a peer's labels are compared with what the
service's fp32 model says of the same photos. What cannot run here is listed with the reason.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.images import Images, load_images, rgb_only
from benchmarks.load import Client
from benchmarks.network import Network
from benchmarks.peers.catalogue import LATENCY_RATIO, OURS, PEERS, PROMISES
from benchmarks.peers.environments import DEFAULT_FOLDER, EnvironmentFailed, ensure
from benchmarks.peers.peer import Form, Peer, raw
from benchmarks.report import Report, Target, common_options, median, ratios, spread
from benchmarks.server import (
    ROOT,
    Server,
    StartFailed,
    bento,
    clean_environment,
    free_port,
    interrupted_by_sigterm,
    started,
)
from benchmarks.subject import add_model_options, settings_of
from benchmarks.throughput import summary
from benchmarks.traffic import Load
from service.config import Settings
from service.runtime import chosen_models

CLIENTS: Final = 16
CHECKED: Final = 16  # photos whose labels are compared
AGREEMENT: Final = 0.9  # at least: rounding and resizing differ a little between libraries


class NotRun(Exception):
    """This one cannot be measured here; the message says why."""


@dataclass
class Runs:
    """One server's measurements, in order of the rounds; empty with a reason where it does not run."""

    name: str
    busy: list[Load] = field(default_factory=list)
    alone: list[Load] = field(default_factory=list)
    agreement: float | None = None
    reason: str = ""

    @property
    def rates(self) -> list[float]:
        return [load.per_second for load in self.busy]


@dataclass(frozen=True)
class Setup:
    """What every server of a comparison shares."""

    settings: Mapping[str, str]
    images: Images
    checkpoint: Path | None
    envs: Path
    seconds: float
    warmup_s: float

    def model_folder(self) -> Path:
        return chosen_models(Settings.from_env(self.settings))[0].folder


def expected_labels(setup: Setup) -> list[str]:
    """What the service's own fp32 model says of the first photos, without HTTP."""
    network = Network(Settings.from_env({**setup.settings, **OURS["fp32-cpu"]}))
    room = network.batch(1)
    return [network.labels[int(network.infer([body], room)[0].argmax())] for body in setup.images.bodies[:CHECKED]]


@contextmanager
def peer_server(peer: Peer, setup: Setup) -> Iterator[Server]:
    """``peer``, ready; ``NotRun`` says what keeps it from that."""
    if peer.needs_checkpoint and setup.checkpoint is None:
        raise NotRun("needs --checkpoint, the network's PyTorch weights")
    if peer.needs_program and shutil.which(peer.needs_program) is None:
        raise NotRun(f"needs {peer.needs_program}, which is not installed")
    try:
        python = ensure(peer.environment, setup.envs)
    except EnvironmentFailed as error:
        raise NotRun(str(error)) from error
    port = free_port()
    command = [str(python), *(word.replace("{port}", str(port)) for word in peer.command)]
    with tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as scratch:
        environment = {
            **clean_environment(setup.settings),
            **peer.settings,
            "PYTHONPATH": str(ROOT),
            "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
            "PEER_MODEL": str(setup.model_folder()),
            "PEER_CHECKPOINT": str(setup.checkpoint or ""),
            "PEER_SCRATCH": scratch,
        }
        try:
            with started(command, port, peer.ready, environment) as server:
                yield server
        except StartFailed as error:
            raise NotRun(str(error)) from error


def agreement(url: str, peer: Peer, setup: Setup, expected: Sequence[str]) -> float:
    """The share of photos that ``peer`` gives the expected label; ``NotRun`` where it is no such network."""
    right = 0
    with httpx.Client(timeout=60) as client:
        for body, label in zip(setup.images.bodies, expected, strict=False):
            content_type, content = peer.form(body)
            answer = client.post(url, content=content, headers={"content-type": content_type})
            if answer.status_code != 200:
                raise NotRun(f"answers {answer.status_code}: {answer.text[:200]}")
            right += peer.label(answer.json()) == label
    share = right / len(expected)
    if share < AGREEMENT:
        raise NotRun(f"its labels are the same as ours for {right} of {len(expected)} photos: another network")
    return share


def _measure(url: str, form: Form, setup: Setup, runs: Runs) -> None:
    formed = [form(body) for body in setup.images.bodies]
    with Client([content for _, content in formed]) as client:
        kind = formed[0][0]
        runs.busy.append(client.closed(url, CLIENTS, setup.seconds, setup.warmup_s, kind))
        runs.alone.append(client.closed(url, 1, setup.seconds / 2, setup.warmup_s / 2, kind))


def _run_ours(name: str, setup: Setup, runs: Runs) -> None:
    with bento({**setup.settings, **OURS[name]}) as server:
        _measure(server.classify, raw, setup, runs)


def _run_peer(peer: Peer, setup: Setup, runs: Runs, expected: Sequence[str]) -> None:
    with peer_server(peer, setup) as server:
        url = server.url + peer.path
        if runs.agreement is None:
            runs.agreement = agreement(url, peer, setup, expected)
        _measure(url, peer.form, setup, runs)


def compare(setup: Setup, ours: Sequence[str], peers: Sequence[str], rounds: int) -> dict[str, Runs]:
    """All of them in turn, ``rounds`` times; one that does not run is not tried again."""
    found = {name: Runs(f"this service, {name}") for name in ours} | {name: Runs(PEERS[name].name) for name in peers}
    expected = expected_labels(setup)
    for _ in range(rounds):
        for name, runs in found.items():
            if runs.reason:
                continue
            try:
                if name in OURS:
                    _run_ours(name, setup, runs)
                else:
                    # The one with our session runs what the service runs, so int8.
                    settings = {**setup.settings, **OURS["int8"]} if name == "fastapi-own" else setup.settings
                    _run_peer(PEERS[name], _with(setup, settings), runs, expected)
            except (NotRun, StartFailed) as error:
                runs.reason = " ".join(str(error).split())[-300:]
            print(f"{runs.name}: {(runs.reason and f'not run: {runs.reason}') or spread(runs.rates)}", flush=True)
    return found


def _with(setup: Setup, settings: Mapping[str, str]) -> Setup:
    return Setup(settings, setup.images, setup.checkpoint, setup.envs, setup.seconds, setup.warmup_s)


def targets(found: Mapping[str, Runs]) -> list[Target]:
    """The promises, by the ratio of each round."""
    held = []
    for promise in PROMISES:
        ours, peer = found.get(promise.ours), found.get(promise.peer)
        if ours is None or peer is None:
            continue
        name = f"{promise.ours}: images/s over {peer.name}"
        reason = ours.reason or peer.reason
        share = None if reason else median(ratios(ours.rates, peer.rates))
        held.append(Target(name, share, promise.ratio, True, note="not run" if reason else ""))
    ours, own = found.get("int8"), found.get("fastapi-own")
    if ours is not None and own is not None and not (ours.reason or own.reason):
        p50 = [[load.percentile_ms(0.5) for load in runs.alone] for runs in (ours, own)]
        held.append(Target(f"int8: p50 of one client over {own.name}", median(ratios(*p50)), LATENCY_RATIO, False))
    return held


def _row(runs: Runs) -> list[str]:
    if runs.reason:
        return [runs.name, f"not run: {runs.reason}", "-", "-", "-", "-"]
    return [
        runs.name,
        spread(runs.rates),
        spread([load.percentile_ms(0.99) for load in runs.busy]),
        spread([load.percentile_ms(0.5) for load in runs.alone]),
        str(sum(load.failed + load.refused for load in [*runs.busy, *runs.alone])),
        "-" if runs.agreement is None else f"{100 * runs.agreement:.0f} %",
    ]


def _chosen(text: str, known: Mapping[str, Any], parser: argparse.ArgumentParser) -> list[str]:
    names = [name for name in text.split(",") if name]
    if unknown := set(names) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return names


def main(arguments: Sequence[str]) -> None:
    parser = common_options("peers run", __doc__)
    add_model_options(parser)
    parser.add_argument("--checkpoint", type=Path, help="the model's PyTorch weights, for LitServe and TorchServe")
    parser.add_argument("--ours", default=",".join(OURS), help="this service's ways to run (%(default)s)")
    parser.add_argument("--peers", default=",".join(PEERS), help="which peers (%(default)s)")
    parser.add_argument("--warmup", type=float, default=5.0, help="seconds before each measurement (%(default)s)")
    parser.add_argument("--envs", type=Path, default=DEFAULT_FOLDER, help="where environments are made (%(default)s)")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.seconds, options.rounds, options.warmup = 1.0, 1, 0.5
    checkpoint = None if options.checkpoint is None else options.checkpoint.absolute()
    images = rgb_only(load_images(options.images))
    setup = Setup(settings_of(options), images, checkpoint, options.envs, options.seconds, options.warmup)
    report = Report("peers", options.smoke)
    report.subject = {
        "model": f"{setup.model_folder()}",
        "images": images.origin,
        "rounds": f"{options.rounds} of {options.seconds:g} s each, {CLIENTS} clients",
    }
    ours, peers = _chosen(options.ours, OURS, parser), _chosen(options.peers, PEERS, parser)
    with interrupted_by_sigterm():
        found = compare(setup, ours, peers, options.rounds)
    report.table(
        f"This service and others, {CLIENTS} clients: medians, least to most",
        ["server", "images/s", "p99 ms", "p50 ms, one client", "failed", "labels as ours"],
        [_row(runs) for runs in found.values()],
    )
    report.data["runs"] = {
        name: {
            "busy": [summary(load) for load in runs.busy],
            "alone": [summary(load) for load in runs.alone],
            "reason": runs.reason,
            "name": runs.name,
            "ours": name in OURS,
        }
        for name, runs in found.items()
    }
    report.hold(targets(found))
    report.finish(options.json)
