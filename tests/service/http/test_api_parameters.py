"""What the query asks for: the model, its version, how many classes."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from service.runtime import Runtime
from tests.service.conftest import CLASSES, TinyModel, a_png, expected, publish_tiny
from tests.service.http.conftest import URL, answer, check_error, serve


@pytest.mark.parametrize("k", [1, 2, CLASSES])
def test_top_k(tiny_root: Path, k: int) -> None:
    response = answer(tiny_root, "POST", f"{URL}?top_k={k}", content=a_png())
    predictions = response.json()["results"][0]["predictions"]
    assert len(predictions) == k
    assert [p["probability"] for p in predictions] == sorted((p["probability"] for p in predictions), reverse=True)


def test_top_k_of_a_model_of_few_classes(tmp_path: Path) -> None:
    publish_tiny(tmp_path, model=TinyModel(classes=2))
    assert len(answer(tmp_path, "POST", URL, content=a_png()).json()["results"][0]["predictions"]) == 2


@pytest.mark.parametrize("k", ["0", "8", "-1", "1.0", "", "x", "٣", "+1", "%201", "1e0", "9" * 5000, "1_0"])
def test_top_k_out_of_bounds(tiny_root: Path, k: str) -> None:
    response = answer(tiny_root, "POST", f"{URL}?top_k={k}", content=a_png())
    assert check_error(response, 400, "bad_request").startswith("top_k: must be ")


@pytest.mark.parametrize("query", ["topk=1", "top_k=1&k=1", "=1", "TOP_K=1", f"{'x' * 3000}=1"])
def test_unknown_query_parameters(tiny_root: Path, query: str) -> None:
    message = check_error(answer(tiny_root, "POST", f"{URL}?{query}", content=a_png()), 400, "bad_request")
    assert "known: class, include, min_probability, model, top_k, version" in message
    assert len(message) < 300


@pytest.mark.parametrize("query", ["top_k=1&top_k=1", "model=tiny&model=tiny", "version=1&top_k=1&version=2"])
def test_repeated_query_parameters(tiny_root: Path, query: str) -> None:
    assert "twice" in check_error(answer(tiny_root, "POST", f"{URL}?{query}", content=a_png()), 400, "bad_request")


def test_parameters_in_great_number_are_not_taken_apart(tiny_root: Path) -> None:
    query = "&".join(["top_k=1"] * 65)
    assert "64" in check_error(answer(tiny_root, "POST", f"{URL}?{query}", content=a_png()), 400, "bad_request")


def test_models_and_versions(tmp_path: Path) -> None:
    for name, version, seed in (("tiny", "1", 0), ("tiny", "2", 1), ("other", "1", 2)):
        publish_tiny(tmp_path, name, version, TinyModel(seed))

    async def use(client: httpx.AsyncClient, _: Runtime) -> None:
        for query, wanted in {
            "": ("tiny", "2"),
            "model=tiny": ("tiny", "2"),
            "version=1": ("tiny", "1"),
            "model=tiny&version=1": ("tiny", "1"),
            "model=other": ("other", "1"),
        }.items():
            body = (await client.post(f"{URL}?{query}", content=a_png(5))).json()
            assert tuple(body["model"].values()) == wanted
            seed = {("tiny", "1"): 0, ("tiny", "2"): 1, ("other", "1"): 2}[wanted]
            assert body["results"][0]["predictions"][0]["index"] == expected(TinyModel(seed), 5, 1)[0][1]
        for query in (
            "model=none",
            "model=",
            "model=tiny&version=3",
            "version=9",
            "model=other&version=2",
            "model=../x",
        ):
            response = await client.post(f"{URL}?{query}", content=a_png())
            assert "served: tiny version 2" in check_error(response, 404, "unknown_model")
        long = await client.post(f"{URL}?model={'x' * 5000}", content=a_png())
        assert len(check_error(long, 404, "unknown_model")) < 500, "what the client typed comes back unbounded"
        listed = (await client.get("/v1/models")).json()["models"]
        assert [(m["name"], m["version"], m["default"]) for m in listed] == [
            ("tiny", "2", True),
            ("tiny", "1", False),
            ("other", "1", False),
        ]

    serve(tmp_path, use, models="tiny,tiny@1,other")
