from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from export.downloads.download import Downloader
from export.downloads.http_client import DownloadError, Unreachable, open_client
from export.downloads.hub import RECORD_FILE, Repository, Snapshot, fetch_snapshot
from tests.export.http_server import (
    WeightsServer,
    answer,
    break_off,
    cdn_path,
    publish_repository,
    serving,
    without_proxies,
)

NAME = "microsoft/resnet-50"
FILES = {
    "README.md": b"# ResNet",
    "config.json": b'{"architectures": ["ResNetForImageClassification"]}',
    "preprocessor_config.json": b'{"size": 224}',
    "model.safetensors": b"safe weights" * 100,
    "pytorch_model.bin": b"other weights" * 100,
    "flax_model.msgpack": b"flax",
}
WANTED = {"model.safetensors", "config.json", "preprocessor_config.json"}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        without_proxies(monkeypatch)
        with open_client() as client:
            yield client


@pytest.fixture
def server() -> Iterator[WeightsServer]:
    with serving() as server:
        yield server


@pytest.fixture
def downloader(client: httpx.Client, console: Console) -> Downloader:
    return Downloader(client, console, lambda _: None)


class Hub:
    """One hub and one cache."""

    def __init__(self, server: WeightsServer, cache: Path, downloader: Downloader) -> None:
        self.server, self.cache, self.downloader = server, cache, downloader

    def fetch(self, revision: str = "main", name: str = NAME) -> Snapshot:
        owner, model = name.split("/")
        return fetch_snapshot(Repository(owner, model, revision), self.cache, self.downloader, self.server.url)

    def says(self, revision: str = "main", **changes: Any) -> None:
        """Let the hub's listing differ."""
        path = f"/api/models/{NAME}/revision/{revision}"
        listing = json.loads(self.server.resources[path].content)
        self.server.publish(path, json.dumps({**listing, **changes}).encode())

    def siblings(self) -> list[dict[str, Any]]:
        path = f"/api/models/{NAME}/revision/main"
        siblings: list[dict[str, Any]] = json.loads(self.server.resources[path].content)["siblings"]
        return siblings


@pytest.fixture
def hub(server: WeightsServer, tmp_path: Path, downloader: Downloader) -> Hub:
    return Hub(server, tmp_path, downloader)


def test_a_snapshot_has_the_weights_and_what_says_how_to_use_them(hub: Hub) -> None:
    commit = publish_repository(hub.server, NAME, FILES)
    snapshot = hub.fetch()
    assert snapshot.commit == commit
    assert snapshot.folder == hub.cache / "huggingface" / "microsoft" / "resnet-50" / commit
    assert snapshot.weights == snapshot.folder / "model.safetensors"
    assert snapshot.url == f"{hub.server.url}/{NAME}/resolve/{commit}/model.safetensors"
    assert {name for name in FILES if (snapshot.folder / name).exists()} == WANTED
    assert all((snapshot.folder / name).read_bytes() == FILES[name] for name in WANTED)
    assert hub.server.requests[0].path == f"/api/models/{NAME}/revision/main?blobs=true"


def test_the_second_time_only_the_revision_is_asked_for(hub: Hub) -> None:
    publish_repository(hub.server, NAME, FILES)
    first = hub.fetch()
    hub.server.requests.clear()
    assert hub.fetch() == first
    assert hub.server.paths() == [f"/api/models/{NAME}/revision/main"]


def test_a_branch_that_moved_brings_its_new_commit(hub: Hub) -> None:
    publish_repository(hub.server, NAME, FILES)
    first = hub.fetch()
    moved = publish_repository(hub.server, NAME, {**FILES, "model.safetensors": b"better weights"})
    assert hub.fetch().commit == moved
    assert hub.fetch(first.commit).weights.read_bytes() == FILES["model.safetensors"]


def test_a_whole_commit_hash_needs_no_network_once_it_is_there(hub: Hub) -> None:
    commit = publish_repository(hub.server, NAME, FILES)
    first = hub.fetch(commit)
    for lock in first.folder.glob("*.lock"):
        lock.unlink()
    before = {path: path.stat().st_mtime_ns for path in hub.cache.rglob("*")}
    hub.server.requests.clear()
    assert hub.fetch(commit) == first
    assert hub.server.requests == []
    assert {path: path.stat().st_mtime_ns for path in hub.cache.rglob("*")} == before, "a cache may be read-only"


def test_a_damaged_file_of_it_is_fetched_again(hub: Hub) -> None:
    commit = publish_repository(hub.server, NAME, FILES)
    snapshot = hub.fetch(commit)
    (snapshot.folder / "config.json").write_bytes(b'{"architectures": ["Another"]}')
    hub.server.requests.clear()
    hub.fetch(commit)
    assert (snapshot.folder / "config.json").read_bytes() == FILES["config.json"]
    assert hub.server.paths() == [f"/{NAME}/resolve/{commit}/config.json"]


def test_without_a_network_the_error_says_which_commits_are_there(hub: Hub) -> None:
    commit = publish_repository(hub.server, NAME, FILES)
    hub.fetch()
    hub.server.script(f"/api/models/{NAME}/revision/main", *[answer(503)] * 5)
    with pytest.raises(Unreachable, match=f"without a network there is hf://{NAME}@{commit}$"):
        hub.fetch()


@pytest.mark.parametrize("record", [b"", b"{}", b"[]", b"\xff", b'{"endpoint": "x", "commit": "0", "files": []}'])
def test_a_record_that_is_damaged_is_made_again(hub: Hub, record: bytes) -> None:
    commit = publish_repository(hub.server, NAME, FILES)
    folder = hub.fetch(commit).folder
    whole = (folder / RECORD_FILE).read_bytes()
    (folder / RECORD_FILE).write_bytes(record)
    hub.fetch(commit)
    assert (folder / RECORD_FILE).read_bytes() == whole


def test_one_hubs_word_is_not_anothers(hub: Hub) -> None:
    """A mirror that was asked once does not decide what the commit holds elsewhere."""
    commit = publish_repository(hub.server, NAME, FILES)
    hub.fetch(commit)
    with serving() as other:
        publish_repository(other, NAME, {**FILES, "config.json": b'{"true": 1}'})
        moved = json.loads(other.resources[f"/api/models/{NAME}/revision/main"].content)
        other.publish(f"/api/models/{NAME}/revision/{commit}", json.dumps({**moved, "sha": commit}).encode())
        other.publish(f"/{NAME}/resolve/{commit}/config.json", b'{"true": 1}')
        elsewhere = Hub(other, hub.cache, hub.downloader).fetch(commit)
        assert (elsewhere.folder / "config.json").read_bytes() == b'{"true": 1}'


def test_weights_of_pytorch_where_there_are_no_others(hub: Hub) -> None:
    publish_repository(hub.server, NAME, {k: v for k, v in FILES.items() if k != "model.safetensors"})
    assert hub.fetch().weights.name == "pytorch_model.bin"


def test_weights_alone_are_enough_here(hub: Hub) -> None:
    publish_repository(hub.server, NAME, {"model.safetensors": b"weights"})
    assert hub.fetch().weights.read_bytes() == b"weights"


@pytest.mark.parametrize("index", ["model.safetensors.index.json", "pytorch_model.bin.index.json"])
def test_weights_in_pieces_are_refused(hub: Hub, index: str) -> None:
    publish_repository(hub.server, NAME, {index: b"{}", "model-00001-of-00002.safetensors": b"half"})
    with pytest.raises(DownloadError, match=f"hf://{NAME}@main: the weights are in several files"):
        hub.fetch()


def test_no_weights(hub: Hub) -> None:
    publish_repository(hub.server, NAME, {"README.md": b"soon"})
    with pytest.raises(DownloadError, match=r"neither model\.safetensors nor pytorch_model\.bin is there"):
        hub.fetch()


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_wrong_bytes_are_found_by_either_hash(hub: Hub, file: str) -> None:
    commit = publish_repository(hub.server, NAME, FILES)
    hub.server.publish(f"/{NAME}/resolve/{commit}/{file}", FILES[file][::-1])
    with pytest.raises(DownloadError, match=f"{file}: not the published file, so it was removed"):
        hub.fetch()
    assert {p.name for p in hub.cache.rglob(f"{file}*")} == {f"{file}.lock"}
    assert not list(hub.cache.rglob(RECORD_FILE))


def test_a_weights_file_that_breaks_off_is_taken_up_again_behind_its_redirect(hub: Hub) -> None:
    publish_repository(hub.server, NAME, FILES)
    hub.server.script(cdn_path(FILES["model.safetensors"]), break_off(500))
    assert hub.fetch().weights.read_bytes() == FILES["model.safetensors"]
    assert [seen.headers["range"] for seen in hub.server.requests if "range" in seen.headers] == ["bytes=500-"] * 2


# A hub that cannot be believed.


@pytest.mark.parametrize(
    "changes",
    [
        {"sha": "../../../etc"},
        {"sha": "0" * 39},
        {"sha": None},
        {"siblings": None},
        {"siblings": [{"rfilename": 7}]},
        {"siblings": [{"rfilename": "model.safetensors", "size": -1, "blobId": "0" * 40}]},
        {"siblings": [{"rfilename": "model.safetensors", "size": "12", "blobId": "0" * 40}]},
        {"siblings": [{"rfilename": "model.safetensors", "size": 1, "blobId": "x" * 40}]},
        {"siblings": [{"rfilename": "model.safetensors", "lfs": {"sha256": "0" * 8, "size": 1}}]},
        {"siblings": [{"rfilename": "model.safetensors", "lfs": {"sha256": "0" * 64}}]},
        {"siblings": [{"rfilename": "model.safetensors", "lfs": {"sha256": "0" * 64, "size": 2**40}}]},
        {"siblings": [{"rfilename": "model.safetensors", "size": 1}]},
        {"siblings": [{"rfilename": "model.safetensors"}, {"rfilename": "../../config.json"}]},
    ],
)
def test_a_listing_that_is_none(hub: Hub, changes: dict[str, Any]) -> None:
    publish_repository(hub.server, NAME, FILES)
    hub.says(**changes)
    with pytest.raises(DownloadError) as error:
        hub.fetch()
    assert "\n" not in str(error.value)
    assert not list(hub.cache.rglob("*.*")), "nothing was written"
    assert len(hub.server.requests) == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b"[" * 100_000, b'{"sha": "\xff"}'])
def test_an_answer_that_is_no_listing(hub: Hub, body: bytes) -> None:
    hub.server.publish(f"/api/models/{NAME}/revision/main", body)
    with pytest.raises(DownloadError, match=f"/api/models/{NAME}/revision/main: not what a hub answers"):
        hub.fetch()


def test_another_commit_than_asked_for(hub: Hub) -> None:
    commit = publish_repository(hub.server, NAME, FILES)
    hub.says(commit, sha="f" * 40)
    with pytest.raises(DownloadError, match=f"asked for {commit}, the hub answers {'f' * 40}"):
        hub.fetch(commit)


def test_names_of_other_files_do_not_matter(hub: Hub) -> None:
    publish_repository(hub.server, NAME, FILES)
    odd = [{"rfilename": "../" * 9 + "evil"}, {"rfilename": ""}, {"rfilename": "/etc/passwd", "size": 0}]
    hub.says(siblings=[*hub.siblings(), *odd])
    folder = hub.fetch().folder
    assert {p.name for p in folder.iterdir() if p.suffix != ".lock"} == {*WANTED, RECORD_FILE}


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_model_that_may_not_be_seen(hub: Hub, status: int) -> None:
    hub.server.script(f"/api/models/{NAME}/revision/main", answer(status))
    with pytest.raises(DownloadError, match=rf"hf://{NAME}@main: there is no such .* token \(HF_TOKEN\).* {status} "):
        hub.fetch()


def test_a_gated_file(hub: Hub) -> None:
    commit = publish_repository(hub.server, NAME, FILES)
    hub.server.script(f"/{NAME}/resolve/{commit}/model.safetensors", answer(403))
    with pytest.raises(DownloadError, match="gated and needs a token"):
        hub.fetch()


def test_a_token_goes_to_the_hub_and_not_to_where_it_sends_us(hub: Hub) -> None:
    commit = publish_repository(hub.server, NAME, FILES)
    with serving() as cdn, open_client("hf_secret", hub.server.url) as client:
        url = cdn.publish("/blob", FILES["model.safetensors"])
        hub.server.redirect(f"/{NAME}/resolve/{commit}/model.safetensors", url)
        hub.downloader = Downloader(client, hub.downloader.console)
        hub.fetch()
        assert {seen.headers.get("authorization") for seen in hub.server.requests} == {"Bearer hf_secret"}
        assert [seen.headers.get("authorization") for seen in cdn.requests] == [None]


def test_a_password_of_a_mirror_is_not_written_down(hub: Hub) -> None:
    commit = publish_repository(hub.server, NAME, FILES)
    endpoint = hub.server.url.replace("http://", "http://me:secret@")
    repository = Repository("microsoft", "resnet-50", commit)
    snapshot = fetch_snapshot(repository, hub.cache, hub.downloader, endpoint + "/")
    assert "secret" not in snapshot.url
    assert "secret" not in (snapshot.folder / RECORD_FILE).read_text()
    hub.server.requests.clear()
    fetch_snapshot(repository, hub.cache, hub.downloader, endpoint)
    assert hub.server.requests == []


@pytest.mark.parametrize("endpoint", ["ftp://hub", "hub.example", "https://hub.example/?a=b", "https://hub.example/#a"])
def test_an_endpoint_that_is_none(downloader: Downloader, tmp_path: Path, endpoint: str) -> None:
    with pytest.raises(DownloadError):
        fetch_snapshot(Repository("a", "b"), tmp_path, downloader, endpoint)


# Names.


@pytest.mark.parametrize("name", ["", "..", ".", "a..b", ".a", "-a", "a b", "a/b", "é", "a" * 97, "a\n"])
def test_names_that_no_hub_has(name: str) -> None:
    with pytest.raises(DownloadError, match="no name on a hub"):
        Repository(name, "model")
    with pytest.raises(DownloadError, match="no name on a hub"):
        Repository("owner", name)


@pytest.mark.parametrize("revision", ["", "../x", "a..b", "/a", "a b", "a?b", "a#b", "a\n", "a" * 129])
def test_revisions_that_no_hub_has(revision: str) -> None:
    with pytest.raises(DownloadError, match="is no revision"):
        Repository("owner", "model", revision)


def test_a_revision_with_a_slash_is_one_part_of_the_path(hub: Hub) -> None:
    publish_repository(hub.server, NAME, FILES, revision="refs%2Fpr%2F1")
    hub.fetch("refs/pr/1")
    assert hub.server.paths()[0] == f"/api/models/{NAME}/revision/refs%2Fpr%2F1"


def test_only_a_whole_hash_is_pinned() -> None:
    assert Repository("a", "b", "0" * 40).pinned
    assert not Repository("a", "b", "0" * 39).pinned
    assert not Repository("a", "b").pinned
    assert str(Repository("a", "b")) == "hf://a/b@main"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["0" * 40, "model.safetensors"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["sha", "siblings", "rfilename", "size", "blobId", "lfs", "sha256"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(answer=JSON)
def test_any_answer_is_a_snapshot_or_an_error(tmp_path_factory: pytest.TempPathFactory, answer: Any) -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        content = json.dumps(answer).encode() if "/api/" in request.url.path else b"x"
        return httpx.Response(200, stream=httpx.ByteStream(content))

    cache = tmp_path_factory.mktemp("cache")
    with httpx.Client(transport=httpx.MockTransport(respond)) as client:
        downloader = Downloader(client, Console(file=io.StringIO()), lambda _: None)
        with pytest.raises(DownloadError) as error:
            fetch_snapshot(Repository("a", "b"), cache, downloader)
    assert "\n" not in str(error.value)
