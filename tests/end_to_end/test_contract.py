"""The running service keeps to its OpenAPI document: schemathesis asks every operation of it, and finds nothing.

Two runs of all operations, the same each time. The first sends what the document allows and what it forbids (wrong
types, bounds, missing and unknown fields, other methods), and asks that the one is taken and the other refused; what
only the running service knows, its models' names and the number of their classes, is written into the document for it.
The second sends anything, broken images too. In both every answer must have a documented status, media type, headers
and schema, and none may be a fault of the service.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.end_to_end.conftest import ROOT, Server, picture, running

pytestmark = pytest.mark.slow

CASES: Final = 40
"""The most for an operation and phase."""

# Operations that may refuse what their schema allows, by the start of their path, and why JSON Schema cannot say it.
BEYOND_SCHEMAS: Final[dict[str, str]] = {
    "/v2/models": "which inputs, outputs and shapes go together, the protocol leaves to each model",
    "/v1/jobs": "which options there are depends on the task",
}

# Parameters whose values may be refused for something else in the request; the second run alone sends them.
DEPENDENT: Final = {
    "class": "whether there is a map of it depends on the image, and whether it may be named, on `include`",
    "style": "asks for a PNG, which shows one image only",
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """With an admin key, which nobody here has: what is behind it answers 401."""
    with running(RESNET_ADMIN_KEY="none-of-schemathesis-has-this") as started:
        yield started


def schemathesis(folder: Path, url: str, *options: str, **environment: str) -> dict[str, Any]:
    """Run it with the document in ``folder``; fails with all that it found. Gives its report."""
    report = folder / "report.json"
    rules = [
        f'[[operations]]\ninclude-path-regex = "^{path}"\nchecks.positive_data_acceptance.enabled = false\n'
        for path in BEYOND_SCHEMAS
    ]
    (folder / "schemathesis.toml").write_text("".join(rules))
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(folder / "schemathesis.toml"), "run"]
    how = ["--generation-deterministic", f"--max-examples={CASES}", "--request-timeout=30"]
    where = [str(folder / "openapi.json"), "--url", url, "--report-json-path", str(report)]
    done = subprocess.run(
        [*command, *where, *how, "--no-color", *options],
        cwd=ROOT,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.end_to_end.contract_hooks", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def operations(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each operation by the name that reports call it."""
    for path, methods in spec["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def narrowed(spec: dict[str, Any], served: list[dict[str, Any]]) -> dict[str, Any]:
    """``spec`` with what only the running service knows: which models there are, and what an image is in base64."""
    known: dict[str, dict[str, Any]] = {
        "model": {"enum": [model["name"] for model in served]},
        "name": {"enum": [model["name"] for model in served]},
        "version": {"enum": [model["version"] for model in served]},
        "top_k": {"maximum": min(model["classes"] for model in served)},
    }
    for _, operation in operations(spec):
        operation["parameters"] = [p for p in operation.get("parameters", ()) if p.get("name") not in DEPENDENT]
        for parameter in operation["parameters"]:
            if "schema" in parameter:
                parameter["schema"] |= known.get(parameter["name"], {})
    images = [base64.b64encode(picture(seed, (40, 30), "PNG")).decode() for seed in range(2)]
    spec["components"]["schemas"]["ImagesBody"]["properties"]["images"]["items"] = {"enum": images}
    return spec


def test_what_the_document_allows_is_taken_and_what_it_forbids_refused(server: Server, tmp_path: Path) -> None:
    spec = httpx.get(f"{server.url}/openapi.json").json()
    served = httpx.get(f"{server.url}/v1/models").json()["models"]
    (tmp_path / "openapi.json").write_text(json.dumps(narrowed(spec, served)))
    report = schemathesis(tmp_path, server.url)
    check_complete(report, spec)
    rates = report["valid_rates"]
    accepted = {name: sum(phase["accepted"] for phase in rates.get(name, {}).values()) for name, _ in operations(spec)}
    # No key opens what is behind it, no canary is served, and no body made by chance is a sound tensor.
    expected = [
        name
        for name, operation in operations(spec)
        if operation["parameters"]
        and {"adminKey": []} not in operation.get("security", [])
        and not name.endswith(("/shadow", "/infer"))
    ]
    assert not [name for name in expected if not accepted[name]]


def test_whatever_is_sent_the_answer_is_as_documented(server: Server, tmp_path: Path) -> None:
    # As a file: of a document's address schemathesis leaves out the operation that answers it.
    spec = httpx.get(f"{server.url}/openapi.json").json()
    (tmp_path / "openapi.json").write_text(json.dumps(spec))
    options = ("--exclude-checks=positive_data_acceptance", "--phases=fuzzing")
    report = schemathesis(tmp_path, server.url, *options, CONTRACT_BODIES="anything")
    check_complete(report, spec)


def check_complete(report: dict[str, Any], spec: dict[str, Any]) -> None:
    """Nothing was left out, and nothing made schemathesis doubt its own findings."""
    count = len(list(operations(spec)))
    assert report["complete"]
    assert (report["operations"]["total"], report["operations"]["tested"]) == (count, count)
    assert report["test_cases"]["generated"] > 10 * count
    unsure = ("unresolvable_reference", "unsupported_regex", "missing_deserializer", "method_not_allowed")
    assert not [name for name in unsure if report["warnings"][name]], report["warnings"]
    print(f"{report['test_cases']['generated']} requests to {count} operations")  # noqa: T201
