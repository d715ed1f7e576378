"""What ``include`` asks for; the way of requests, errors and limits are test_api*.py's."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from model_store.manifest import Calibration
from service.http.classify import PARTS, ClassifyQuery
from service.http.schemas import Classified
from service.runtime import Runtime
from tests.service.conftest import (
    MAPS,
    SIDE,
    Hold,
    TinyModel,
    a_picture,
    a_png,
    encode,
    eventually,
    expected,
    publish_tiny,
)
from tests.service.http.conftest import URL, Exchange, answer, check_error, files, serve


def pixels(seed: int) -> Any:
    return np.asarray(a_picture(seed))


def logits(model: TinyModel, seed: int) -> Any:
    return model.logits([pixels(seed)])[0].astype(np.float64)


def result_of(response: httpx.Response) -> dict[str, Any]:
    """The only result of an answer that is as its schema says."""
    assert response.status_code == 200, response.text
    Classified.model_validate_json(response.content, strict=True)
    (result,) = response.json()["results"]
    return dict(result)


def a_calibration(**changes: Any) -> Calibration:
    values = {
        "temperature": 2.0,
        "images": 10,
        "image_source": "made up",
        "bins": 15,
        "error_before": 0.1,
        "error_after": 0.05,
        "coverage": 0.95,
        "energy": 0.0,
        "max_logit": 0.0,
    }
    return Calibration.model_validate(values | changes)


# include


@pytest.mark.parametrize(
    "include", ["predictions", "embedding", "scores,timings", "timings,predictions", ",".join(PARTS), "scores,scores"]
)
def test_a_result_has_just_the_parts_that_were_asked_for(tiny_root: Path, include: str) -> None:
    result = result_of(answer(tiny_root, "POST", f"{URL}?include={include}", content=a_png()))
    assert list(result) == [part for part in PARTS if part in include.split(",")]


def test_without_include_there_are_predictions_alone(tiny_root: Path) -> None:
    assert list(result_of(answer(tiny_root, "POST", URL, content=a_png()))) == ["predictions"]


@pytest.mark.parametrize("include", ["", "predictions,", "logits", "Predictions", "predictions, scores", "*"])
def test_an_unknown_part(tiny_root: Path, include: str) -> None:
    response = answer(tiny_root, "POST", URL, params={"include": include}, content=a_png())
    message = check_error(response, 400, "bad_request")
    assert message.startswith("include: ")
    assert "predictions, embedding, heatmap, scores, timings" in message


def test_the_schema_of_include() -> None:
    schema = ClassifyQuery.model_json_schema()["properties"]["include"]
    assert (schema["type"], schema["default"]) == ("string", "predictions")
    assert schema["pattern"].startswith("^(predictions|")


def test_the_embedding(tiny_root: Path) -> None:
    result = result_of(answer(tiny_root, "POST", f"{URL}?include=embedding", content=a_png(2)))
    assert result["embedding"] == pytest.approx(pixels(2).mean(axis=(0, 1)).tolist(), rel=1e-5)


def test_the_heatmap_is_of_the_best_class(tiny_root: Path, tiny: TinyModel) -> None:
    heatmap = result_of(answer(tiny_root, "POST", f"{URL}?include=heatmap", content=a_png(2)))["heatmap"]
    label, index, _ = expected(tiny, 2, 1)[0]
    assert (heatmap["label"], heatmap["index"]) == (label, index)
    np.testing.assert_allclose(heatmap["grid"], tiny.map_of(pixels(2), index), rtol=1e-4, atol=1e-4)
    assert heatmap["logit"] == pytest.approx(logits(tiny, 2)[index], abs=1e-4)
    assert heatmap["bias"] == pytest.approx(tiny.bias[index], abs=1e-4)
    assert (heatmap["height"], heatmap["width"]) == (SIDE, SIDE)


@pytest.mark.parametrize("rank", range(MAPS))
@pytest.mark.parametrize("by", ["label", "index"])
def test_the_heatmap_of_a_class(tiny_root: Path, tiny: TinyModel, rank: int, by: str) -> None:
    label, index, _ = expected(tiny, 3, MAPS)[rank]
    query = {"include": "heatmap", "class": label if by == "label" else index}
    heatmap = result_of(answer(tiny_root, "POST", URL, params=query, content=a_png(3)))["heatmap"]
    assert (heatmap["label"], heatmap["index"]) == (label, index)
    np.testing.assert_allclose(heatmap["grid"], tiny.map_of(pixels(3), index), rtol=1e-4, atol=1e-4)


def test_scores_of_a_model_without_calibration(tiny_root: Path, tiny: TinyModel) -> None:
    scores = result_of(answer(tiny_root, "POST", f"{URL}?include=scores", content=a_png(4)))["scores"]
    assert scores["max_logit"] == pytest.approx(logits(tiny, 4).max(), abs=1e-4)
    assert scores["energy"] == pytest.approx(np.logaddexp.reduce(logits(tiny, 4)), abs=1e-4)
    assert scores["out_of_distribution"] is None


def test_scores_of_a_calibrated_model(tmp_path: Path, tiny: TinyModel) -> None:
    """Images of less energy than the threshold are strange; the temperature is of probabilities alone."""
    energies = [float(np.logaddexp.reduce(logits(tiny, seed))) for seed in (0, 1)]
    publish_tiny(tmp_path, model=tiny, calibration=a_calibration(energy=sum(energies) / 2))
    response = answer(tmp_path, "POST", f"{URL}?include=scores", files=files(a_png(0), a_png(1)))
    scores = [result["scores"] for result in response.json()["results"]]
    assert [score["energy"] for score in scores] == pytest.approx(energies, abs=1e-4)
    assert [score["out_of_distribution"] for score in scores] == [energy < sum(energies) / 2 for energy in energies]


def test_timings_are_seconds_of_this_request(tiny_root: Path, hold_model: Callable[[Runtime], Hold]) -> None:
    """They fit into the time that the request took, and what waited says so."""

    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        hold = hold_model(runtime)
        began = asyncio.get_running_loop().time()
        first = asyncio.create_task(client.post(f"{URL}?include=timings", content=a_png()))
        await hold.wait_entered()
        exchange = Exchange(runtime, query="include=timings")
        exchange.say(a_png(1)[:20], more=True)
        exchange.say(a_png(1)[20:])
        await eventually(lambda: len(runtime.models[0]._batcher._queue) == 1, "the second image")
        hold.released.set()
        found = [result_of(response)["timings"] for response in (await first, await exchange.response())]
        took = asyncio.get_running_loop().time() - began
        for timings in found:
            assert list(timings) == ["read", "decode", "queue", "infer"]
            assert all(seconds >= 0 for seconds in timings.values())
            assert sum(timings.values()) <= took
        assert found[0]["infer"] > 0
        assert found[0]["decode"] > 0

    serve(tiny_root, use)


# class


def test_class_without_a_heatmap_is_a_mistake(tiny_root: Path) -> None:
    assert "heatmap" in check_error(answer(tiny_root, "POST", f"{URL}?class=1", content=a_png()), 400, "bad_request")


@pytest.mark.parametrize("wanted", ["7", "-1", "1.0", "", "class 7", "Class 1", "٣", "9" * 4000, " 1"])
def test_a_class_that_there_is_not(tiny_root: Path, wanted: str) -> None:
    response = answer(tiny_root, "POST", URL, params={"include": "heatmap", "class": wanted}, content=a_png())
    message = check_error(response, 400, "bad_request")
    assert message.startswith("class: ")
    assert len(message) < 200


def test_labels_that_are_numbers_come_before_indices(tmp_path: Path) -> None:
    model = TinyModel(classes=MAPS)
    model.labels = ("2", "0", "1")
    publish_tiny(tmp_path, model=model)
    for wanted, index in (("2", 0), ("0", 1), ("1", 2)):
        response = answer(tmp_path, "POST", f"{URL}?include=heatmap&class={wanted}", content=a_png())
        assert result_of(response)["heatmap"]["index"] == index


def test_a_label_of_two_classes(tmp_path: Path) -> None:
    """As ImageNet's crane, a bird and a machine."""
    model = TinyModel(classes=MAPS)
    model.labels = ("crane", "other", "crane")
    publish_tiny(tmp_path, model=model)
    response = answer(tmp_path, "POST", f"{URL}?include=heatmap&class=crane", content=a_png())
    assert "[0, 2]" in check_error(response, 400, "bad_request")
    response = answer(tmp_path, "POST", f"{URL}?include=heatmap&class=2", content=a_png())
    assert result_of(response)["heatmap"]["index"] == 2


def test_a_class_that_is_not_among_the_best(tiny_root: Path, tiny: TinyModel) -> None:
    """It is the image's affair: another one may well have a map of it."""
    colours = [Image.new("RGB", (SIDE, SIDE), name) for name in ("red", "lime", "blue", "yellow", "black", "white")]
    ranks = np.argsort(-tiny.logits([np.asarray(colour) for colour in colours]), axis=1).tolist()
    wanted = next(index for index in range(7) if len({index in rank[:MAPS] for rank in ranks}) == 2)
    has = [wanted in rank[:MAPS] for rank in ranks]
    query = {"include": "predictions,heatmap", "class": wanted}
    response = answer(tiny_root, "POST", URL, params=query, files=files(*map(encode, colours)))
    results = response.json()["results"]
    assert ["heatmap" in result for result in results] == has
    bad = has.index(False)
    assert results[bad]["error"]["code"] == "no_heatmap"
    for index in ranks[bad][:MAPS]:
        assert tiny.labels[index] in results[bad]["error"]["message"]
    alone = answer(tiny_root, "POST", URL, params=query, content=encode(colours[bad]))
    assert f"the {MAPS} best classes" in check_error(alone, 422, "no_heatmap")


@pytest.mark.parametrize("part", ["embedding", "heatmap", "predictions,heatmap,embedding"])
def test_a_model_without_such_an_output(tmp_path: Path, part: str) -> None:
    publish_tiny(tmp_path, model=TinyModel(maps=0))

    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        exchange = Exchange(runtime, query=f"include={part}")
        assert "model 'tiny' has no" in check_error(await exchange.response(), 422, "missing_output")
        assert exchange.received == 0, "the body was read for nothing"
        assert "scores" in result_of(await client.post(f"{URL}?include=predictions,scores", content=a_png()))

    serve(tmp_path, use)


# min_probability


def test_abstaining(tiny_root: Path, tiny: TinyModel) -> None:
    best = expected(tiny, 5, 1)[0][2]
    for threshold, abstained in ((0, False), (best - 1e-3, False), (best + 1e-3, True), (1, True)):
        response = answer(tiny_root, "POST", f"{URL}?min_probability={threshold}", content=a_png(5))
        result = result_of(response)
        assert result["abstained"] is abstained
        assert len(result["predictions"]) == (0 if abstained else 5)


def test_abstaining_is_by_the_calibrated_probability(tmp_path: Path, tiny: TinyModel) -> None:
    publish_tiny(tmp_path, model=tiny, calibration=a_calibration(temperature=2.0))
    cooled = np.exp(logits(tiny, 5) / 2)
    best = float(cooled.max() / cooled.sum())
    for threshold, abstained in ((best - 1e-3, False), (best + 1e-3, True)):
        result = result_of(answer(tmp_path, "POST", f"{URL}?min_probability={threshold}", content=a_png(5)))
        assert result["abstained"] is abstained
    assert result_of(answer(tmp_path, "POST", URL, content=a_png(5)))["predictions"][0]["probability"] == pytest.approx(
        best, abs=1e-5
    )


def test_who_abstains_still_gives_the_other_parts(tiny_root: Path) -> None:
    url = f"{URL}?min_probability=1&include=scores,embedding"
    assert set(result_of(answer(tiny_root, "POST", url, content=a_png()))) == {"scores", "embedding", "abstained"}


@pytest.mark.parametrize("value", ["1.1", "-0.1", "nan", "inf", "", "half"])
def test_a_min_probability_out_of_bounds(tiny_root: Path, value: str) -> None:
    response = answer(tiny_root, "POST", f"{URL}?min_probability={value}", content=a_png())
    assert check_error(response, 400, "bad_request").startswith("min_probability: ")


# JSON


def test_images_in_json(tiny_root: Path, tiny: TinyModel) -> None:
    content = {"images": [base64.b64encode(data).decode() for data in (a_png(0), b"no image", a_png(1))]}
    results = answer(tiny_root, "POST", f"{URL}?top_k=1", json=content).json()["results"]
    assert [results[i]["predictions"][0]["index"] for i in (0, 2)] == [expected(tiny, i, 1)[0][1] for i in (0, 1)]
    assert results[1]["error"]["code"] == "not_an_image"


def test_mistakes_in_json(tiny_root: Path) -> None:
    image = base64.b64encode(a_png()).decode()
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"json": {"images": [image, "%"]}}, 400, "bad_request"),
        ({"json": {"images": []}}, 400, "bad_request"),
        ({"json": {"images": [image] * 4}}, 413, "too_many_images"),
        ({"json": {"images": [base64.b64encode(b"no image").decode()]}}, 415, "not_an_image"),
        ({"json": {"images": [base64.b64encode(encode(a_picture(size=(50, 50)))).decode()]}}, 413, "image_too_large"),
        ({"json": {"images": ["A" * 40000]}}, 413, "body_too_large"),
        ({"content": a_png(), "headers": {"content-type": "application/json"}}, 400, "bad_request"),
    ]

    async def use(client: httpx.AsyncClient, _: Runtime) -> None:
        for request, status, code in cases:
            check_error(await client.post(URL, **request), status, code)

    serve(tiny_root, use, max_pixels=2000, max_images=3, max_body_bytes=20000)


# What the default request costs


def test_only_the_outputs_that_are_wanted_are_asked_of_the_graph(
    tiny_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def use(client: httpx.AsyncClient, runtime: Runtime) -> None:
        session = runtime.models[0].session
        run, asked = session.run, []

        def noted(batch: Any, names: Any, alone: bool) -> Any:
            asked.append(set(names))
            return run(batch, names, alone)

        monkeypatch.setattr(session, "run", noted)
        for include in ("predictions", "scores,timings", "embedding", "predictions,heatmap", ",".join(PARTS)):
            result_of(await client.post(f"{URL}?include={include}", content=a_png()))
        assert asked == [
            {"logits"},
            {"logits"},
            {"logits", "embedding"},
            {"logits", "cam"},
            {"logits", "embedding", "cam"},
        ]

    serve(tiny_root, use)


def test_a_wrong_query_is_refused_before_the_body(tiny_root: Path) -> None:
    async def use(_: httpx.AsyncClient, runtime: Runtime) -> None:
        for query in ("include=x", "class=x&include=heatmap", "min_probability=2", "top_k=99", "class=1"):
            exchange = Exchange(runtime, query=query)
            check_error(await exchange.response(), 400, "bad_request")
            assert exchange.received == 0

    serve(tiny_root, use)
