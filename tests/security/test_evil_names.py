"""Evil names by every way into the running service: HTTP paths and queries, bodies, gRPC; none leaves the store."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import httpx
import pytest

from service.grpc import open_inference_pb2 as pb
from tests.end_to_end.conftest import Server, free_port, picture, running
from tests.end_to_end.test_lifecycle import KEY, NAME, publish

from .evil import CANARY, NAMES
from .watch import Watch, watching

pytestmark = pytest.mark.slow

SECRET = "the canary sings"  # noqa: S105 - what must not be read
REFUSED = {400, 404}
IMAGE = picture(1)


class Place:
    """A served store in a folder with things that are none of its business, and the watch over those."""

    def __init__(self, server: Server, port: int, folder: Path, watch: Watch) -> None:
        self.server, self.port, self.folder, self.watch = server, port, folder, watch


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("evil")
    store, outside, jobs = folder / "models", folder / "outside", folder / "jobs"
    publish(store, "1")
    publish(outside, "1")
    jobs.mkdir()
    for canary in (folder / CANARY, outside / CANARY, outside / NAME / CANARY, jobs / CANARY):
        canary.write_text(SECRET)
    port = free_port()
    settings = {
        "RESNET_MODEL_STORE": str(store),
        "RESNET_MODELS": f"{NAME}@1",
        "RESNET_JOBS_DIR": str(jobs),
        "RESNET_GRPC_PORT": str(port),
        "RESNET_ADMIN_KEY": KEY,
        "RESNET_WATCH_S": "1",
        "RESNET_LOG_REQUESTS": "all",
    }
    with watching(outside, outside / NAME, outside / NAME / "1") as watch:
        (outside / CANARY).read_text()
        assert str(outside / CANARY) in watch.opened(), "the watch sees nothing"
        with running(**settings) as server:
            # What somebody with a hand in the store may leave there.
            (store / "linked").symlink_to(outside / NAME)
            (store / NAME / "2").symlink_to(outside / NAME / "1")
            (store / NAME / "aliases").symlink_to(outside)
            yield Place(server, port, folder, watch)


def paths(name: str) -> Iterator[tuple[str, str]]:
    """Methods and targets with ``name`` in them, percent-encoded whole."""
    word = quote(name, safe="").replace(".", "%2E")  # httpx would resolve the dots itself
    for target in (f"/v1/models/{word}", f"/v1/models/{word}/shadow", f"/v2/models/{word}", f"/v2/models/{word}/ready"):
        yield "GET", target
    yield "GET", f"/v2/models/{NAME}/versions/{word}"
    yield "GET", f"/v2/models/{NAME}/versions/{word}/ready"
    yield "GET", f"/v1/jobs/{word}"
    yield "GET", f"/v1/jobs/{word}/result"
    yield "DELETE", f"/v1/jobs/{word}"
    yield "GET", f"/web/{word}"
    yield "POST", f"/v2/models/{word}/infer"
    yield "POST", f"/v2/models/{NAME}/versions/{word}/infer"
    yield "POST", f"/v2/repository/models/{word}/load"
    yield "POST", f"/v2/repository/models/{word}/unload"
    for task in ("classify", "embed", "explain"):
        yield "POST", f"/v1/{task}?model={word}"
        yield "POST", f"/v1/{task}?model={NAME}&version={word}"
    yield "POST", f"/v1/jobs?task=classify&model={word}"
    yield "POST", f"/v1/jobs?task={word}"


def test_over_http(place: Place) -> None:
    """Encoded, so that each name arrives as it is."""
    wrong = []
    headers = {"authorization": f"Bearer {KEY}", "content-type": "image/jpeg"}
    with httpx.Client(base_url=place.server.url, timeout=60, headers=headers) as client:
        for name in NAMES:
            for method, target in paths(name):
                answer = client.request(method, target, content=IMAGE if method == "POST" else None)
                # An unknown path of a route that exists for another method: "" or "." left nothing of the name.
                if answer.status_code not in REFUSED | {405} or SECRET in answer.text:
                    wrong.append((answer.status_code, method, target[:80]))
        assert client.post("/v1/classify", content=IMAGE).status_code == 200
    assert not wrong
    assert not place.watch.opened()


def raw(place: Place, target: bytes, header: bytes = b"") -> bytes:
    """The whole answer to a GET of ``target``, sent as it is."""
    port = int(place.server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\n%sConnection: close\r\n\r\n" % (target, header))
        return b"".join(iter(lambda: connection.recv(2**16), b""))


ROOTS = [b"/", b"/web/", b"/v1/models/", b"/v1/jobs/", b"/v2/models/", b"/static/", b"/docs/", b"/assets/"]
STEPS = [b"../", b"..%2f", b"%2e%2e/", b"%2e%2e%2f", b"..\\", b"..%5c", b"..;/", b"..%c0%af", b"%252e%252e/", b"//"]


@pytest.mark.parametrize("step", STEPS)
def test_paths_that_no_client_would_send(place: Place, step: bytes) -> None:
    """Nothing is normalised on the way, by a client or by us."""
    for root in ROOTS:
        for target in (b"pyproject.toml", b"etc/passwd", CANARY.encode()):
            answer = raw(place, root + step * 6 + target)
            status = int(answer.split(b" ", 2)[1])
            assert status in REFUSED, (root, step, answer[:200])
            assert not any(word in answer for word in (SECRET.encode(), b"root:x:", b"[build-system]"))
    assert not place.watch.opened()


def test_an_id_that_is_no_word_is_not_repeated(place: Place) -> None:
    for value in (b"a\xff", b"a b", b'"><script>', b"a" * 129, b"a\tb", b"${jndi:x}"):
        answer = raw(place, b"/livez", b"X-Request-ID: %s\r\n" % value)
        assert answer.startswith(b"HTTP/1.1 200")
        assert value not in answer


def test_over_grpc(place: Place) -> None:
    wrong: list[Any] = []
    with grpc.insecure_channel(f"127.0.0.1:{place.port}") as channel:

        def code(method: str, request: Any) -> grpc.StatusCode:
            call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}", lambda m: m.SerializeToString())
            answer = call.future(request, timeout=60)
            assert SECRET not in (answer.details() or "")
            return answer.code()

        assert code("ModelReady", pb.ModelReadyRequest(name=NAME)) is grpc.StatusCode.OK
        tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1])
        tensor.contents.bytes_contents.append(IMAGE)
        for name in NAMES:
            for model, version in ((name, ""), (NAME, name)):
                for method, request in (
                    ("ModelReady", pb.ModelReadyRequest(name=model, version=version)),
                    ("ModelMetadata", pb.ModelMetadataRequest(name=model, version=version)),
                    ("ModelInfer", pb.ModelInferRequest(model_name=model, model_version=version, inputs=[tensor])),
                ):
                    found = code(method, request)
                    if found not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT):
                        wrong.append((found, method, model[:40], version[:40]))
    assert not wrong
    assert not place.watch.opened()


def test_what_lies_in_the_store_leads_nowhere_else(place: Place) -> None:
    """Neither by its own name nor by the version's is a link followed; the aliases' folder is not read."""
    with httpx.Client(base_url=place.server.url, timeout=60) as client:
        assert client.post("/v1/classify?model=linked", content=IMAGE).status_code == 404
        assert client.post(f"/v1/classify?model={NAME}&version=2", content=IMAGE).status_code == 404
        loaded = client.post("/v2/repository/models/linked/load", headers={"authorization": f"Bearer {KEY}"})
        assert loaded.status_code == 404
        assert SECRET not in client.get(f"/v1/models/{NAME}").text
    assert not place.watch.opened()
