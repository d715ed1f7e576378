"""The image, built once as docs/deployment.md says, and containers of it."""

from __future__ import annotations

import re
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from tests.container.engine import ROOT, Engine, why_not
from tests.end_to_end.conftest import free_port, until

IMAGE = "resnet-serving"
COMPOSE = ROOT / "docker" / "compose.yaml"
PYTHON = "python", "-c"
# This machine may not be allowed more; the service needs less.
ULIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")


def documented(start: str) -> list[str]:
    """The words of the one command of docs/deployment.md that begins like this."""
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    (found,) = (line for block in blocks for line in block.splitlines() if line.startswith(start))
    return shlex.split(found)


def hardening() -> list[str]:
    """docker/compose.yaml's own restrictions of the service, as options."""
    service = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]["service"]
    options = ["--read-only"] if service["read_only"] else []
    options += [word for place in service["tmpfs"] for word in ("--tmpfs", place)]
    options += [word for capability in service["cap_drop"] for word in ("--cap-drop", capability)]
    return options + [
        word for option in service["security_opt"] for word in ("--security-opt", option.removesuffix(":true"))
    ]


class Container:
    """One container of the image, on the machine's own network."""

    def __init__(self, engine: Engine, name: str, port: int) -> None:
        self.engine = engine
        self.name = name
        self.url = f"http://127.0.0.1:{port}"
        self._client = httpx.Client(base_url=self.url, timeout=30)

    def start(self) -> float:
        """Seconds until it is ready."""
        began = time.monotonic()
        self.engine.podman("start", self.name)
        until(lambda: self.ready() or not self.running(), f"{self.name} is ready", pause_s=0.1)
        assert self.running(), self.logs()
        return time.monotonic() - began

    def ready(self) -> bool:
        try:
            return self._client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def running(self) -> bool:
        return bool(self.state()["Running"])

    def state(self) -> dict[str, object]:
        state: dict[str, object] = self.engine.inspect(self.name)["State"]
        return state

    def run(self, *command: str) -> str:
        """What a command prints in it."""
        return self.engine.podman("exec", self.name, *command)

    def succeeds(self, *command: str) -> bool:
        return self.engine.code("exec", self.name, *command) == 0

    def stop(self) -> int:
        """SIGTERM, and the grace of docker/compose.yaml; the exit status."""
        self.engine.podman("stop", "--time", "30", self.name)
        return int(str(self.state()["ExitCode"]))

    def logs(self) -> str:
        return self.engine.logs(self.name)

    def close(self) -> None:
        self._client.close()


Create = Callable[..., AbstractContextManager[Container]]


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    if reason := why_not():
        pytest.skip(reason)
    made = Engine(Path(tempfile.mkdtemp(prefix="resnet-containers-", dir="/var/tmp")))
    try:
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="session")
def image(engine: Engine) -> str:
    words = documented("docker build -f docker/Dockerfile ")
    engine.build(words[2:])
    return IMAGE


@pytest.fixture(scope="session")
def create(engine: Engine, image: str) -> Create:
    """Makes a container, restricted as docker/compose.yaml does, that is not started yet."""

    @contextmanager
    def creating(*options: str, restrictions: list[str] | None = None, **settings: str) -> Iterator[Container]:
        container = Container(engine, f"resnet-{free_port()}", port := free_port())
        # The address, as the container shares the machine's network.
        settings |= {"BENTOML_PORT": str(port), "BENTOML_HOST": "127.0.0.1"}
        set_up = [word for name, value in settings.items() for word in ("--env", f"{name}={value}")]
        limits = [*(hardening() if restrictions is None else restrictions), "--read-only-tmpfs=false", *ULIMITS]
        engine.podman(
            "create", "--name", container.name, "--network", "host", *limits, *set_up, *options, image
        )  # fmt: skip
        try:
            yield container
        finally:
            container.close()
            engine.podman("rm", "--force", "--time", "0", container.name)

    return creating
