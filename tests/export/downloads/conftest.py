"""A server with one file, and a downloader that notes what it does."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from export.downloads.download import Downloader, Remote
from tests.export.http_server import WeightsServer, serving

CONTENT = bytes(range(256)) * 40
OTHER = bytes(reversed(CONTENT))
PATH = "/models/net.pth"


@pytest.fixture
def server() -> Iterator[WeightsServer]:
    with serving() as server:
        server.publish(PATH, CONTENT)
        yield server


@dataclass
class Setup:
    """A downloader that notes how long it would have slept, and the place that it fills."""

    target: Path
    downloader: Downloader
    slept: list[float] = field(default_factory=list)

    def fetch(self, url: str, content: bytes = CONTENT, **known: Any) -> bytes:
        remote = Remote(url, **{"sha256": hashlib.sha256(content).hexdigest(), **known})
        assert self.downloader.fetch(remote, self.target) == self.target
        return self.target.read_bytes()

    def left(self) -> set[str]:
        """What lies in the folder beside the lock."""
        return {p.name for p in self.target.parent.iterdir() if p.suffix != ".lock"}

    def said(self) -> str:
        assert isinstance(self.downloader.console.file, io.StringIO)
        return self.downloader.console.file.getvalue()


@pytest.fixture
def setup(tmp_path: Path, console: Console, http_client: httpx.Client) -> Setup:
    slept: list[float] = []
    return Setup(tmp_path / "cache" / "net.pth", Downloader(http_client, console, slept.append), slept)
