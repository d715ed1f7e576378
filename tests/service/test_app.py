"""The BentoML service, in a process of its own: importing it sets up logging and metrics for good."""

from __future__ import annotations

import json
import os
import subprocess
import sys

PROGRAM = """
import asyncio, json, sys
from _bentoml_sdk import Service

async def bentoml(scope, receive, send):
    taken.append(scope["path"])

taken = []
Service.to_asgi = lambda self, is_main=True: bentoml
from service.app import ResNetService

app = ResNetService.to_asgi()
answered = {}

async def ask(path):
    async def send(message):
        if message["type"] == "http.response.start":
            answered[path] = message["status"]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
    await app(scope, None, send)

async def main():
    for path in ("/", "/v1/models", "/v1/classify", "/livez", "/readyz", *json.loads(sys.argv[1])):
        await ask(path)

asyncio.run(main())
inputs = {name: method.input_spec.model_fields["root"] for name, method in ResNetService.apis.items()}
declared = {name: field.annotation.__name__ for name, field in inputs.items()}
print(json.dumps({"bentoml": taken, "ours": answered, "apis": declared, "depends": list(ResNetService.dependencies)}))
"""


# What BentoML would answer, and what nobody does.
nowhere = ["/nowhere", "/docs.json", "/static_content/index.js", "/assets/index.js", "/healthz/", "/classify/submit"]


def test_our_routes_do_not_pass_bentomls_middleware() -> None:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("RESNET_")} | {"BENTOML_DO_NOT_TRACK": "True"}
    command = [sys.executable, "-c", PROGRAM, json.dumps(nowhere)]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    # Of a Path or an image BentoML would open what clients name; between services it would send pickles.
    assert (found.pop("apis"), found.pop("depends")) == ({"classify": "bytes"}, [])
    assert found == {
        "bentoml": ["/livez", "/readyz"],
        "ours": {"/": 200, "/v1/models": 503, "/v1/classify": 405, **dict.fromkeys(nowhere, 404)},
    }
