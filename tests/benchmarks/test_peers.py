"""The peers that need no peer: their files, pins, forms and promises."""

from __future__ import annotations

import ast
import base64
import json
import re
from pathlib import Path

import pytest
from python_multipart import MultipartParser

from benchmarks.peers import environments
from benchmarks.peers.catalogue import OURS, PEERS, PROMISES
from benchmarks.peers.environments import REQUIREMENTS, EnvironmentFailed, ensure
from benchmarks.peers.peer import base64_json, first_key, multipart, own_label, raw
from benchmarks.peers.run import Runs, targets
from benchmarks.traffic import Load

APPS = REQUIREMENTS.parent / "apps"


@pytest.mark.parametrize("path", sorted(APPS.rglob("*.py")), ids=lambda path: path.name)
def test_applications_compile_and_say_what_they_are(path: Path) -> None:
    tree = ast.parse(path.read_text(), str(path))
    compile(tree, str(path), "exec")
    assert ast.get_docstring(tree)


def test_every_peer_has_its_application_and_its_requirements() -> None:
    for peer in PEERS.values():
        assert (REQUIREMENTS / f"{peer.environment}.txt").is_file()
        modules = [word.partition(":")[0] for word in peer.command if word.startswith("benchmarks.peers.apps.")]
        assert len(modules) == 1
        assert (APPS.parents[2] / f"{modules[0].replace('.', '/')}.py").is_file()
        assert "{port}" in " ".join(peer.command)


@pytest.mark.parametrize("path", sorted(REQUIREMENTS.glob("*.in")), ids=lambda path: path.stem)
def test_every_requirement_is_pinned(path: Path) -> None:
    pins = {}
    for line in path.with_suffix(".txt").read_text().splitlines():
        found = re.fullmatch(r"([a-z0-9._-]+)(?:\[[a-z,]+\])?==(\S+)(?: *; .*)?", line)
        assert found, line
        pins[found[1]] = found[2]
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            continue
        name, _, version = line.partition("==")
        name = name.partition("[")[0]
        assert name in pins
        assert not version or pins[name] == version


def test_promises_are_of_peers_that_are_there() -> None:
    assert {promise.peer for promise in PROMISES} == set(PEERS)
    assert {promise.ours for promise in PROMISES} == set(OURS)


def test_forms_carry_the_image_whole() -> None:
    image = b"\xff\xd8 \r\n--x\r\n\x00"
    assert raw(image) == ("application/octet-stream", image)
    kind, body = base64_json("image_data")(image)
    assert kind == "application/json"
    assert base64.b64decode(json.loads(body)["image_data"]) == image
    kind, body = multipart("file")(image)
    parts: list[bytes] = []
    parser = MultipartParser(
        kind.partition("boundary=")[2].encode(),
        {"on_part_data": lambda data, start, end: parts.append(data[start:end])},
    )
    parser.write(body)
    parser.finalize()
    assert b"".join(parts) == image


def test_labels_are_read_from_either_form_of_answer() -> None:
    assert own_label({"label": "ship", "probability": 0.9}) == "ship"
    assert first_key({"cat": 0.1, "ship": 0.9}) == "ship"


def run(rate: int, p50_s: float) -> Runs:
    load = Load(1.0, rate, {200: rate}, [p50_s], [], [], rate)
    return Runs("some", [load], [load])


def test_promises_are_held_against_ratios() -> None:
    found = {name: run(10, 0.01) for name in PEERS} | {name: run(80, 0.008) for name in OURS}
    found["ray"].reason = "no such thing here"
    held = targets(found)
    assert len(held) == len(PROMISES) + 1
    by_peer = dict(zip([(p.ours, p.peer) for p in PROMISES], held, strict=False))
    assert by_peer["int8", "fastapi"].met is True
    assert by_peer["int8", "bentoml"].met is False
    assert by_peer["int8", "ray"].met is None
    assert held[-1].measured == pytest.approx(0.8)
    assert held[-1].met is False
    assert targets({"int8": run(1, 1.0)}) == []


def test_an_environment_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    monkeypatch.setattr(environments, "_run", lambda command: commands.append(command))
    (tmp_path / "envs" / "some").mkdir(parents=True)
    (tmp_path / "some.txt").write_text("a==1\n")
    python = ensure("some", tmp_path / "envs")
    assert python == tmp_path / "envs" / "some" / "bin" / "python"
    made = len(commands)
    assert made
    ensure("some", tmp_path / "envs")
    assert len(commands) == made
    (tmp_path / "some.txt").write_text("a==2\n")
    ensure("some", tmp_path / "envs")
    assert len(commands) == 2 * made


def test_what_the_failing_command_says_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    (tmp_path / "some.txt").write_text("a==1\n")
    (tmp_path / "envs").write_text("a file, where there should be a folder")
    with pytest.raises(EnvironmentFailed, match="envs"):
        ensure("some", tmp_path / "envs")
