"""The BentoML service, in a process of its own: importing it sets up logging and metrics for good."""

from __future__ import annotations

import json
import os
import subprocess
import sys

PROGRAM = """
import asyncio, json
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
    for path in ("/", "/v1/models", "/v1/classify", "/livez", "/readyz", "/nowhere"):
        await ask(path)

asyncio.run(main())
print(json.dumps({"bentoml": taken, "ours": answered}))
"""


def test_our_routes_do_not_pass_bentomls_middleware() -> None:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("RESNET_")} | {"BENTOML_DO_NOT_TRACK": "True"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {
        "bentoml": ["/livez", "/readyz", "/nowhere"],
        "ours": {"/": 200, "/v1/models": 503, "/v1/classify": 405},
    }
