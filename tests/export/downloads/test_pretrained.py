from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from torch import Tensor

from export.downloads.http_client import DownloadError
from export.downloads.hub import Repository
from export.downloads.pretrained import Builtin, Pretrained, _weights, default_cache, parse, resolve
from export.networks import specs
from tests.export.http_server import (
    WeightsServer,
    answer,
    break_off,
    publish_repository,
    publish_torchvision,
    serving,
    table_says,
    without_proxies,
)

STATE = {"conv1.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4), "fc.bias": torch.ones(1000)}


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    without_proxies(monkeypatch)


@pytest.fixture
def server() -> Iterator[WeightsServer]:
    with serving() as server:
        yield server


def load(path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(path, weights_only=True)
    return state


# torchvision.


def test_weights_of_torchvision(
    server: WeightsServer, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    table_says(monkeypatch, "resnet50", publish_torchvision(server, STATE))
    got = resolve("torchvision/resnet50", tmp_path, console, mirror=server.url)
    assert got.checkpoint.parent == tmp_path / "torchvision"
    assert load(got.checkpoint).keys() == STATE.keys()
    assert got == Pretrained(
        reference="torchvision/resnet50:IMAGENET1K_V2",
        checkpoint=got.checkpoint,
        origin="torchvision",
        architecture="resnet50",
        labels=got.labels,
        preprocessing=got.preprocessing,
        sha256=got.sha256,
        url=f"{server.url}/models/{got.checkpoint.name}",
    )
    assert got.checkpoint.name == f"resnet50-{got.sha256[:8]}.pth"
    assert got.labels is not None
    assert (len(got.labels), got.labels[0]) == (1000, "tench")
    assert got.preprocessing is not None
    assert (got.preprocessing.height, got.preprocessing.width, got.preprocessing.resize) == (224, 224, 232)
    assert got.preprocessing.mean == (0.485, 0.456, 0.406)

    assert resolve("torchvision/resnet50", tmp_path, console, mirror=server.url) == got
    assert len(server.requests) == 1, "the second time it is there"


def test_weights_of_a_member_of_the_enum(
    server: WeightsServer, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    table_says(monkeypatch, "resnet50", publish_torchvision(server, STATE), "IMAGENET1K_V1")
    (path,) = server.resources
    server.script(path, break_off(100))
    got = resolve(
        "torchvision/resnet50:IMAGENET1K_V1", tmp_path, console, mirror=f"{server.url}/", sleep=lambda _: None
    )
    assert got.reference == "torchvision/resnet50:IMAGENET1K_V1"
    assert got.preprocessing is not None
    assert got.preprocessing.resize == 256


def test_weights_that_are_not_torchvisions_are_refused(server: WeightsServer, tmp_path: Path, console: Console) -> None:
    """The table as it is: a mirror that has something else under the right name."""
    server.publish("/models/resnet50-11ad3fa6.pth", b"not ResNet-50")
    with pytest.raises(DownloadError, match=r"its SHA-256 is [0-9a-f]{64}, not 11ad3fa6\.\.\."):
        resolve("torchvision/resnet50", tmp_path, console, mirror=server.url)


def test_a_mirror_without_the_file(server: WeightsServer, tmp_path: Path, console: Console) -> None:
    with pytest.raises(DownloadError, match=r"/models/resnet18-f37072fd\.pth: the server answers 404"):
        resolve("torchvision/resnet18", tmp_path, console, mirror=server.url)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("torchvision/resnet51", "did you mean .*resnet50"),
        ("torchvision/xyzzy", "torchvision has no weights for 'xyzzy'$"),
        ("torchvision/resnet50:IMAGENET22K", "no weights 'IMAGENET22K' .*there: IMAGENET1K_V1, IMAGENET1K_V2$"),
        ("torchvision/vgg16", "vgg16: this network cannot be exported"),
        ("torchvision/quantized_resnet50", "quantized_resnet50: this network cannot be exported"),
    ],
)
def test_weights_that_are_not_to_be_had(
    server: WeightsServer, tmp_path: Path, console: Console, reference: str, message: str
) -> None:
    with pytest.raises(DownloadError, match=message):
        resolve(reference, tmp_path, console, mirror=server.url)
    assert server.requests == []


@pytest.mark.parametrize("url", ["https://download.pytorch.org/models/resnet50.pth", "https://x/resnet50-1234567.pth"])
def test_weights_without_a_hash_are_refused(
    tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    table_says(monkeypatch, "resnet50", url)
    with pytest.raises(DownloadError, match="no hash in the file's name"):
        resolve("torchvision/resnet50", tmp_path, console)


def test_a_mirror_has_only_what_it_mirrors(tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    table_says(monkeypatch, "resnet50", "https://weights.example/resnet50-12345678.pth")
    with pytest.raises(DownloadError, match="no mirror has it"):
        resolve("torchvision/resnet50", tmp_path, console, mirror="https://mirror.example")


def torchvision_names() -> list[str]:
    """Networks that torchvision has weights for and the exporter has in its table."""
    from torchvision.models import list_models

    return [name for name in list_models() if name in specs.SPECS]


def test_the_whole_table_can_be_used(tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every member of torchvision's enums for our networks: its hash, its labels, its preprocessing."""
    asked: list[str] = []

    def fetch(_: object, remote: object, target: Path) -> Path:
        asked.append(target.name)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(b"")
        return target

    monkeypatch.setattr("export.downloads.download.Downloader.fetch", fetch)
    names = torchvision_names()
    assert {"resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2"} <= set(names)
    for name in names:
        for member in type(_weights(Builtin(name))):
            got = resolve(f"torchvision/{name}:{member.name}", tmp_path, console)
            assert got.labels is not None
            assert len(got.labels) == 1000
            assert got.preprocessing is not None
            assert got.preprocessing.height == 224
            assert got.preprocessing.resize in (232, 256)
            assert asked[-1].startswith(f"{name}-")


# A hub.


@pytest.mark.parametrize(
    ("config", "origin"),
    [
        ({"architectures": ["ResNetForImageClassification"], "model_type": "resnet"}, "huggingface"),
        ({"architecture": "resnet50", "pretrained_cfg": {"input_size": [3, 224, 224]}}, "timm"),
        ({"architecture": "resnet50", "input_size": [3, 224, 224]}, "timm"),
    ],
)
def test_a_model_of_a_hub(
    server: WeightsServer, tmp_path: Path, console: Console, config: dict[str, object], origin: str
) -> None:
    files = {"model.safetensors": safetensors.torch.save(STATE), "config.json": json.dumps(config).encode()}
    commit = publish_repository(server, "owner/net", files)
    got = resolve("hf://owner/net", tmp_path, console, mirror=server.url)
    assert got.origin == origin
    assert got.reference == f"hf://owner/net@{commit}"
    assert safetensors.torch.load_file(got.checkpoint / "model.safetensors").keys() == STATE.keys()
    assert json.loads((got.checkpoint / "config.json").read_text()) == config
    assert (got.architecture, got.labels, got.preprocessing) == (None, None, None)
    assert got.sha256 == hashlib.sha256(files["model.safetensors"]).hexdigest()
    assert got.url == f"{server.url}/owner/net/resolve/{commit}/model.safetensors"

    server.requests.clear()
    assert resolve(got.reference, tmp_path, console, mirror=server.url) == got
    assert server.requests == [], "what a commit holds is known"


@pytest.mark.parametrize("config", [None, b"", b"[]", b"[" * 100_000, b'"pretrained_cfg"', b"\xff"])
def test_a_configuration_that_is_none_is_for_its_reader(
    server: WeightsServer, tmp_path: Path, console: Console, config: bytes | None
) -> None:
    files = {"model.safetensors": b"weights"} | ({} if config is None else {"config.json": config})
    publish_repository(server, "owner/net", files)
    assert resolve("hf://owner/net", tmp_path, console, mirror=server.url).origin == "huggingface"


def test_a_token_is_for_the_hub(server: WeightsServer, tmp_path: Path, console: Console) -> None:
    publish_repository(server, "owner/net", {"model.safetensors": b"weights"})
    resolve("hf://owner/net", tmp_path, console, mirror=server.url, token="hf_secret")  # noqa: S106
    assert {seen.headers["authorization"] for seen in server.requests} == {"Bearer hf_secret"}


def test_a_token_is_not_for_torchvision(server: WeightsServer, tmp_path: Path, console: Console) -> None:
    server.script("/models/resnet18-f37072fd.pth", answer(404))
    with pytest.raises(DownloadError):
        resolve("torchvision/resnet18", tmp_path, console, mirror=server.url, token="hf_secret")  # noqa: S106
    assert "authorization" not in server.requests[0].headers


# Names.


@pytest.mark.parametrize(
    ("reference", "parsed"),
    [
        ("torchvision/resnet50", Builtin("resnet50")),
        ("torchvision/resnet50:IMAGENET1K_V1", Builtin("resnet50", "IMAGENET1K_V1")),
        ("hf://microsoft/resnet-50", Repository("microsoft", "resnet-50")),
        ("hf://timm/resnet50.a1_in1k", Repository("timm", "resnet50.a1_in1k")),
        ("hf://a/b@refs/pr/1", Repository("a", "b", "refs/pr/1")),
        (f"hf://a/b@{'0' * 40}", Repository("a", "b", "0" * 40)),
    ],
)
def test_references(reference: str, parsed: Builtin | Repository) -> None:
    assert parse(reference) == parsed


@pytest.mark.parametrize(
    "reference",
    ["", "torchvision/", "torchvision/a/b", "torchvision/../x", "torchvision/a:", "hf://a", "hf://a/b/c", "hf://a/b@",
     "hf:///b", "hf://../b", "http://a/b", "checkpoint.pth", "torchvision/resnet50\n", "TORCHVISION/resnet50"],
)  # fmt: skip
def test_references_that_are_none(reference: str) -> None:
    with pytest.raises(DownloadError):
        parse(reference)


def test_a_bare_name_gets_a_hint() -> None:
    with pytest.raises(DownloadError, match=r"'resnet50' is no name .* \(torchvision/resnet50 is\)"):
        parse("resnet50")


@given(st.one_of(st.text(max_size=30), st.text("hf:/@.ab-", max_size=12).map(lambda text: f"hf://{text}")))
def test_any_reference_is_understood_or_refused(text: str) -> None:
    try:
        parsed = parse(text)
    except DownloadError:
        return
    if isinstance(parsed, Repository):
        assert not {parsed.owner, parsed.name} & {"", ".", ".."}
        assert "/" not in parsed.owner + parsed.name


# The cache and the whole program.


def test_the_cache_is_where_the_desktop_says(tmp_path: Path) -> None:
    assert default_cache({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "resnet-serving"
    assert default_cache({"XDG_CACHE_HOME": "relative"}) == Path.home() / ".cache" / "resnet-serving"
    assert default_cache({}) == Path.home() / ".cache" / "resnet-serving"


def test_torchvision_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, export.downloads.pretrained; sys.exit('torchvision' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=True)
