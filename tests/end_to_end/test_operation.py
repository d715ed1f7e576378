"""Start, readiness, settings, metrics and stop, of the real processes."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from model_store.manifest import MANIFEST_FILE, dump_manifest
from model_store.store import EMBEDDED_MODELS, ModelStore
from model_store.verified import describe_file
from tests.end_to_end.conftest import ROOT, Server, free_port, picture, until

Serve = Callable[..., AbstractContextManager[Server]]


def samples(page: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    return {(s.name, frozenset(s.labels.items())): s.value for s in found}


def test_alive_ready_and_an_index(client: httpx.Client) -> None:
    assert client.get("/livez").status_code == 200
    assert client.get("/readyz").status_code == 200
    assert "/v1/classify" in client.get("/").json()["routes"]
    assert client.get("/v1/classify").status_code == 405
    assert client.get("/no/such/page").json()["error"]["code"] == "not_found"


def test_metrics_are_right_across_workers(serve: Serve) -> None:
    with serve(workers=2) as server:
        # Each lets the other take the next connection; libuv would have one of them take all that wait.
        workers = psutil.Process(server.process.pid).children(recursive=True)
        assert [worker.environ().get("UV_TCP_SINGLE_ACCEPT") for worker in workers] == ["1", "1"]
        # A connection each, so that both workers have some.
        for seed in range(20):
            assert httpx.post(f"{server.url}/v1/classify", content=picture(seed)).status_code == 200
        assert httpx.post(f"{server.url}/v1/classify", content=b"no image").status_code == 415
        served = httpx.get(f"{server.url}/v1/models").json()["models"][0]
        queue = frozenset({"model": served["name"], "version": served["version"]}.items())
        labels = {"route": "/v1/classify", "model": served["name"], "version": served["version"]}

        def page() -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
            return samples(httpx.get(f"{server.url}/metrics").text)

        # Each worker hands its counts over within a second.
        until(lambda: page().get(("resnet_batch_images_sum", queue), 0) >= 21, "the counts of both workers")
        pages = [page() for _ in range(6)]
    for shown in pages:
        assert shown["resnet_requests_total", frozenset({**labels, "code": "200"}.items())] == 20
        assert shown["resnet_requests_total", frozenset({**labels, "code": "415"}.items())] == 1
        for stage in ("decode", "infer", "post"):
            assert shown["resnet_stage_seconds_count", frozenset({("stage", stage)})] == 20
        for stage in ("read", "queue"):  # what is no image is found out in the slot
            assert shown["resnet_stage_seconds_count", frozenset({("stage", stage)})] == 21
        assert shown["resnet_batch_images_sum", queue] == 21
        assert shown["resnet_queue_images", queue] == 0
        assert shown["resnet_workers_ready", frozenset()] == 2
        assert any(name == "resnet_model_info" for name, _ in shown)


def test_paths_of_clients_make_no_metrics(client: httpx.Client) -> None:
    for number in range(50):
        client.get(f"/random/{number}")
    routes = {dict(labels).get("route") for _, labels in samples(client.get("/metrics").text)}
    described = client.get("/openapi.json").json()["paths"]
    assert "other" in routes
    assert routes <= {None, "other", "/web/{name}", "/healthz", *described}


def start_and_fail(**settings: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "bentoml", "serve", "service.app:ResNetService", "--port", "0"],
        cwd=ROOT,
        env={**os.environ, "BENTOML_DO_NOT_TRACK": "True", **settings},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    output = done.stdout + done.stderr
    assert "Traceback" not in output
    lines = [line for line in output.splitlines() if line.startswith("resnet-serving: ")]
    assert len(lines) == 1
    return lines[0]


def test_a_wrong_setting_stops_the_start_with_one_line() -> None:
    assert "RESNET_MAX_BATCH='many'" in start_and_fail(RESNET_MAX_BATCH="many")
    assert "did you mean RESNET_PROVIDER?" in start_and_fail(RESNET_PROVIDR="cpu")


def test_a_run_dir_is_made_or_refused_with_one_line(serve: Serve, tmp_path: Path) -> None:
    with serve(workers=2, RESNET_RUN_DIR=str(tmp_path / "made" / "here")) as server:
        assert httpx.get(f"{server.url}/readyz").status_code == 200
    (tmp_path / "file").write_text("")
    assert "RESNET_RUN_DIR" in start_and_fail(RESNET_RUN_DIR=str(tmp_path / "file" / "below"))


def test_a_model_that_no_worker_can_open_ends_the_service(tmp_path: Path) -> None:
    """The hashes are right, the graph is none: only a worker finds out, and the whole service must fail."""
    store = ModelStore(EMBEDDED_MODELS)
    stored = store.resolve(store.names()[0])
    folder = tmp_path / stored.manifest.name / stored.manifest.version
    shutil.copytree(stored.folder, folder)
    weights = folder / stored.manifest.variants[0].file
    weights.write_bytes(b"no graph")
    file = describe_file(weights)
    variant = stored.manifest.variants[0].model_copy(update={"sha256": file.sha256, "bytes": file.bytes})
    manifest = stored.manifest.model_copy(update={"variants": [variant]})
    (folder / MANIFEST_FILE).write_text(dump_manifest(manifest))
    done = subprocess.run(
        [sys.executable, "-m", "bentoml", "serve", "service.app:ResNetService", "--port", str(free_port())],
        cwd=ROOT,
        env={**os.environ, "BENTOML_DO_NOT_TRACK": "True", "RESNET_MODEL_STORE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert "resnet-serving: cpu: " in done.stdout + done.stderr


def test_a_killed_worker_is_replaced_and_the_others_answer_meanwhile(serve: Serve) -> None:
    with serve(workers=2) as server:
        server.workers()[0].kill()
        for seed in range(20):
            assert httpx.post(f"{server.url}/v1/classify", content=picture(seed), timeout=30).status_code == 200
        server.wait_for_line("ready after")
        page = samples(httpx.get(f"{server.url}/metrics").text)
        assert page["resnet_workers_ready", frozenset()] == 2


def test_a_stop_turns_readiness_first_then_refuses_then_answers_what_it_took(serve: Serve) -> None:
    data = picture(1)
    head = f"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    grpc_port = free_port()
    limits = {"RESNET_DRAIN_S": "600", "RESNET_STOP_S": "900", "RESNET_DEADLINE_S": "120", "RESNET_BODY_IDLE_S": "120"}
    with serve(RESNET_GRPC_PORT=str(grpc_port), **limits) as server:
        port = int(server.url.rpartition(":")[2])
        (worker,) = server.workers()
        with socket.create_connection(("127.0.0.1", port), timeout=60) as taken:
            taken.sendall(head + data[:100])
            server.process.send_signal(signal.SIGTERM)
            until(lambda: httpx.get(f"{server.url}/readyz").status_code == 503, "the turn of readiness")
            answer = httpx.post(f"{server.url}/v1/classify", content=data)
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
            worker.send_signal(signal.SIGTERM)  # which ends the wait

            def refused(port: int) -> bool:
                with socket.socket() as other:
                    other.settimeout(1)
                    return other.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED

            until(lambda: refused(port), "refusal")
            until(lambda: refused(grpc_port), "refusal over gRPC")
            assert server.process.poll() is None
            taken.sendall(data[100:])
            answered = b"".join(iter(lambda: taken.recv(65536), b""))
        assert answered.startswith(b"HTTP/1.1 200 ")
        assert b'"predictions"' in answered
        assert server.process.wait(60) == 0


def test_work_for_clients_that_left_is_dropped(serve: Serve) -> None:
    async def leave(url: str, count: int) -> None:
        """Send ``count`` requests and hang up without waiting for an answer."""
        body = picture(1, (3000, 3000))
        host, port = url.removeprefix("http://").split(":")
        head = f"POST /v1/classify HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
        for _ in range(count):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(head.encode() + body)
            await writer.drain()
            writer.close()
            await writer.wait_closed()

    with serve(RESNET_SLOTS="1", RESNET_DECODE_THREADS="1") as server:
        asyncio.run(leave(server.url, 20))
        # Answered after those before it were computed or dropped: one decode thread takes them in order.
        assert httpx.post(f"{server.url}/v1/classify", content=picture(2), timeout=60).status_code == 200
        page = samples(httpx.get(f"{server.url}/metrics").text)
        # The requests are over for the server too: it does not wait for them when it stops.
        assert server.stop(limit_s=30) == 0
    gone = sum(v for (name, labels), v in page.items() if name == "resnet_requests_total" and ("code", "499") in labels)
    computed = sum(value for (name, _), value in page.items() if name == "resnet_batch_images_sum")
    print(f"{gone:.0f} of 20 dropped, {computed:.0f} images computed")  # noqa: T201
    assert gone > 10
    assert computed < 10


def test_a_provider_that_cannot_be_had_stops_the_start() -> None:
    assert "cuda: no NVIDIA " in start_and_fail(RESNET_PROVIDER="cuda")


def test_a_missing_or_damaged_model_stops_the_start(tmp_path: Path) -> None:
    assert "no model 'nobody'" in start_and_fail(RESNET_MODELS="nobody")
    store = ModelStore(EMBEDDED_MODELS)
    stored = store.resolve(store.names()[0])
    folder = tmp_path / stored.manifest.name / stored.manifest.version
    shutil.copytree(stored.folder, folder)
    weights = folder / stored.manifest.variants[0].file
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    assert "SHA-256" in start_and_fail(RESNET_MODEL_STORE=str(tmp_path))


def test_a_provider_asked_for_by_name_is_used(serve: Serve) -> None:
    with serve(RESNET_PROVIDER="cpu", RESNET_IMAGE_FORMATS="gif") as server:
        assert httpx.get(f"{server.url}/v1/models").json()["models"][0]["provider"] == "cpu"
        assert httpx.post(f"{server.url}/v1/classify", content=picture(1, form="GIF")).status_code == 200
        assert httpx.post(f"{server.url}/v1/classify", content=picture(1)).status_code == 415


def test_overload_is_refused_and_told_when_to_come_back(serve: Serve) -> None:
    async def flood(url: str) -> list[httpx.Response]:
        data = picture(1, (3000, 3000))
        async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=40)) as client:
            return await asyncio.gather(*(client.post(f"{url}/v1/classify", content=data) for _ in range(40)))

    with serve(RESNET_MAX_QUEUE="2") as server:
        responses = asyncio.run(flood(server.url))
        assert {r.status_code for r in responses} == {200, 429}
        refused = next(r for r in responses if r.status_code == 429)
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["code"] == "overloaded"
        assert httpx.post(f"{server.url}/v1/classify", content=picture(1)).status_code == 200


def test_a_deadline_that_passes_is_a_504(serve: Serve) -> None:
    """The body is there long before, and its images take longer than that on any machine."""
    files = [("images", (str(seed), picture(seed, (3000, 3000)))) for seed in range(24)]
    with serve(RESNET_DEADLINE_S="0.4") as server:
        response = httpx.post(f"{server.url}/v1/classify", files=files, timeout=60)
        assert response.status_code == 504
        assert response.json()["error"]["code"] == "deadline_exceeded"


def test_sigterm_finishes_what_was_accepted(serve: Serve) -> None:
    async def stop_under_load(server: Server) -> list[int]:
        data = picture(1, (2000, 2000))
        async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=32)) as client:
            await client.get(f"{server.url}/readyz")
            tasks = [asyncio.create_task(client.post(f"{server.url}/v1/classify", content=data)) for _ in range(32)]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            stopped = asyncio.create_task(asyncio.to_thread(server.stop))
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert await stopped == 0
        # What the service had not yet accepted when it stopped may fail to connect; nothing may be answered wrongly.
        return [outcome.status_code for outcome in outcomes if isinstance(outcome, httpx.Response)]

    with serve() as server:
        statuses = asyncio.run(stop_under_load(server))
    assert statuses
    assert set(statuses) == {200}
