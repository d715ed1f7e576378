"""The page at ``/`` in a real browser: what people do with it."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image, ImageChops
from playwright.sync_api import Browser, Page, Route, expect

from model_store.store import EMBEDDED_MODELS
from tests.end_to_end.browser import PHONE, SHIP, chromium, classified, drawn, keep, opened
from tests.end_to_end.conftest import Server, picture, running
from tests.service.conftest import TinyModel, publish_tiny

pytestmark = pytest.mark.slow

LIMIT = 2_000_000  # bytes of a body


@pytest.fixture(scope="module")
def page_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The embedded model beside two versions of a tiny one."""
    store = tmp_path_factory.mktemp("store")
    shutil.copytree(EMBEDDED_MODELS, store, dirs_exist_ok=True)
    for version in ("1", "2"):
        publish_tiny(store, "tiny", version, TinyModel(int(version)))
    embedded = next(EMBEDDED_MODELS.iterdir()).name
    with running(
        RESNET_PRECISION="fp32",
        RESNET_MODEL_STORE=str(store),
        RESNET_MODELS=f"{embedded},tiny,tiny@1",
        RESNET_MAX_BODY_BYTES=str(LIMIT),
    ) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser: Browser, page_server: Server) -> Iterator[Page]:
    with opened(browser, page_server.url) as found:
        yield found


def choose(page: Page, *files: Path | tuple[str, bytes]) -> None:
    given = [(file.name, file.read_bytes()) if isinstance(file, Path) else file for file in files]
    page.set_input_files(
        "#files",
        [{"name": name, "mimeType": "application/octet-stream", "buffer": content} for name, content in given],
    )


# The same event that a drop or a paste makes, with the file from the page's own example.
_HAND_OVER = """async ([kind, name]) => {
    const blob = await (await fetch("web/ship.jpg")).blob();
    const data = new DataTransfer();
    data.items.add(new File([blob], name, {type: "image/jpeg"}));
    const options = {bubbles: true, cancelable: true};
    document.body.dispatchEvent(kind === "paste"
        ? new ClipboardEvent("paste", {...options, clipboardData: data})
        : new DragEvent(kind, {...options, dataTransfer: data}));
}"""


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_that_is_dropped_or_pasted_is_classified(page: Page, kind: str) -> None:
    expect(page.locator("#empty")).to_be_visible()
    if kind == "drop":
        page.evaluate(_HAND_OVER, ["dragenter", "ship.jpg"])
        expect(page.locator(".drop-over")).to_be_visible()
    page.evaluate(_HAND_OVER, [kind, "ship.jpg"])
    classified(page, 1)
    expect(page.locator(".drop-over")).to_be_hidden()
    expect(page.locator("#empty")).to_be_hidden()
    expect(page.locator(".prediction .label").first).to_have_text("ship")
    expect(page.locator("#announce")).to_contain_text("ship.jpg: ship, 9")


def test_a_link_that_is_dropped_is_explained(page: Page) -> None:
    page.evaluate("""() => {
        const data = new DataTransfer();
        data.setData("text/uri-list", "http://example.org/a.png");
        document.body.dispatchEvent(new DragEvent("drop", {bubbles: true, cancelable: true, dataTransfer: data}));
    }""")
    expect(page.get_by_role("alert")).to_contain_text("drop the file")
    assert page.locator(".card").count() == 0


def test_what_a_card_tells_is_what_the_api_answers(page: Page, page_server: Server) -> None:
    answer = httpx.post(f"{page_server.url}/v1/classify", content=SHIP.read_bytes()).json()
    predictions = answer["results"][0]["predictions"]
    choose(page, SHIP)
    classified(page, 1)
    assert page.locator(".prediction .label").all_inner_texts() == [p["label"] for p in predictions]
    assert page.locator(".prediction .percent").first.inner_text() == f"{100 * predictions[0]['probability']:.1f} %"
    track, fill = (page.locator(f".prediction .{part}").first.bounding_box() for part in ("track", "fill"))
    assert track is not None
    assert fill is not None
    assert fill["width"] / track["width"] == pytest.approx(predictions[0]["probability"], abs=0.02)
    model = answer["model"]
    expect(page.locator(".who")).to_contain_text(f"{model['name']} version {model['version']}, ")
    assert page.locator(".legend dt").all_inner_texts() == ["Read", "Decode", "Queue", "Infer", "Rest"]
    expect(page.locator(".facts")).to_have_text("640 × 480, 41 kB")


def test_the_map_of_the_class_that_is_chosen_lies_over_the_picture(page: Page) -> None:
    choose(page, SHIP)
    classified(page, 1)
    canvas = page.locator(".card canvas")
    expect(canvas).to_be_hidden()
    page.locator(".prediction").first.click()
    expect(canvas).to_be_visible()
    expect(page.get_by_role("img", name="Map of where ship is seen in ship.jpg")).to_be_visible()
    expect(page.locator(".prediction").first).to_have_attribute("aria-pressed", "true")
    assert canvas.bounding_box() == page.locator(".card img").bounding_box()
    of_ship = drawn(page)
    page.locator(".prediction").nth(1).click()
    expect(page.locator(".heat-note")).to_contain_text("Where the network sees")
    expect(page.get_by_role("img", name="Map of where ship is seen in ship.jpg")).to_have_count(0)
    of_another = drawn(page)
    assert of_ship.size == of_another.size == (640, 480)
    changed = np.asarray(ImageChops.difference(of_ship.convert("RGB"), of_another.convert("RGB"))).max(axis=2) > 32
    assert changed.mean() > 0.05
    page.get_by_role("slider").fill("20")
    expect(canvas).to_have_css("opacity", "0.2")
    page.locator(".prediction").nth(1).click()
    expect(canvas).to_be_hidden()


def test_the_map_is_bright_where_the_api_says_and_dim_where_the_network_saw_nothing(
    page: Page, page_server: Server
) -> None:
    answer = httpx.post(f"{page_server.url}/v1/explain", content=SHIP.read_bytes(), headers={"accept": "*/*"}).json()
    heatmap = answer["results"][0]["heatmap"]
    cells = [(value, row, column) for row, line in enumerate(heatmap["grid"]) for column, value in enumerate(line)]
    left, upper, right, lower = heatmap["box"]

    def place(row: int, column: int) -> tuple[int, int]:
        x = left + (column + 0.5) * (right - left) / heatmap["width"]
        return int(x), int(upper + (row + 0.5) * (lower - upper) / heatmap["height"])

    choose(page, SHIP)
    classified(page, 1)
    page.locator(".prediction").first.click()
    expect(page.locator(".card canvas")).to_be_visible()
    lightness = drawn(page).convert("L")
    assert np.max(lightness) - 12 <= lightness.getpixel(place(*max(cells)[1:]))
    assert lightness.getpixel(place(*min(cells)[1:])) < 30
    assert lightness.getpixel((int(left / 2), 240)) < 30


def test_a_class_without_a_map_says_so(page: Page) -> None:
    page.get_by_label("Model", exact=True).select_option("tiny")
    assert page.get_by_label("Classes").locator("option").all_inner_texts() == ["3", "5", "7"], "it has seven"
    page.get_by_label("Classes").select_option("7")
    choose(page, SHIP)
    classified(page, 1)
    assert page.locator(".prediction").count() == 7
    page.locator(".prediction").last.click()
    expect(page.locator(".heat-note")).to_contain_text("There is no map of class ")
    expect(page.locator(".card canvas")).to_be_hidden()


def test_what_is_wrong_with_a_file_is_told_in_its_card(page: Page) -> None:
    cut = SHIP.read_bytes()[:9000]
    choose(page, ("notes.txt", b"no picture"), ("cut.jpg", cut), SHIP)
    classified(page, 3)
    titles = page.locator(".failure:visible h4").all_inner_texts()
    assert titles == ["Not a picture the service reads", "The picture is damaged"]
    expect(page.locator(".failure p").first).to_contain_text("jpeg, png, webp")
    expect(page.get_by_role("button", name="Try again")).to_have_count(0)
    expect(page.locator(".card").nth(2).locator(".label").first).to_have_text("ship")
    keep(page, "errors", full=True)


def test_a_file_over_the_limit_is_told_to_be(page: Page) -> None:
    choose(page, ("huge.jpg", SHIP.read_bytes() + bytes(LIMIT)))
    classified(page, 1)
    expect(page.locator(".failure")).to_contain_text("too large")


def test_two_pictures_are_compared(page: Page, page_server: Server) -> None:
    photo = picture(3)
    choose(page, SHIP, ("photo.jpg", photo), ("again.jpg", SHIP.read_bytes()))
    classified(page, 3)
    for name in ("ship.jpg", "photo.jpg"):
        page.get_by_role("button", name=f"Compare {name}").click()
    embeddings = [
        httpx.post(f"{page_server.url}/v1/embed", content=content).json()["results"][0]["embedding"]
        for content in (SHIP.read_bytes(), photo)
    ]
    norms = [sum(x * x for x in e) ** 0.5 for e in embeddings]
    cosine = sum(a * b for a, b in zip(*embeddings, strict=True)) / norms[0] / norms[1]
    expect(page.locator("#scale.known")).to_be_visible()
    assert float(page.locator("#cosine").inner_text().replace("−", "-")) == pytest.approx(cosine, abs=2e-3)
    assert page.locator(".pick figcaption").all_inner_texts() == ["ship.jpg", "photo.jpg"]
    # A third takes the place of the oldest; the same picture is the same.
    page.get_by_role("button", name="Compare again.jpg").click()
    page.get_by_role("button", name="Compare photo.jpg").click()
    page.get_by_role("button", name="Compare ship.jpg").click()
    expect(page.locator("#cosine")).to_have_text("1.000")
    keep(page, "compare")
    page.get_by_role("button", name="End the comparison").click()
    expect(page.locator("#tray")).to_be_hidden()
    assert page.locator(".compare[aria-pressed=true]").count() == 0


def test_another_model_and_version_answer_for_all_pictures(page: Page) -> None:
    choose(page, SHIP, ("photo.jpg", picture(1)))
    classified(page, 2)
    page.get_by_label("Model", exact=True).select_option("tiny")
    expect(page.locator(".who").nth(1)).to_contain_text("tiny version 2")
    classified(page, 2)
    expect(page.locator(".prediction .label").first).to_contain_text("class ")
    page.get_by_label("Version").select_option("1")
    expect(page.locator(".who").nth(0)).to_contain_text("tiny version 1")
    expect(page.locator(".who").nth(1)).to_contain_text("tiny version 1")


def test_an_image_stored_on_its_side_stands_upright_under_its_map(page: Page) -> None:
    with Image.open(SHIP) as ship:
        encoded = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6  # turn a quarter to the right to see it
        ship.rotate(90, expand=True).save(encoded, "JPEG", exif=exif)
    choose(page, ("sideways.jpg", encoded.getvalue()))
    classified(page, 1)
    expect(page.locator(".facts")).to_contain_text("640 × 480")
    expect(page.locator(".prediction .label").first).to_have_text("ship")
    page.locator(".prediction").first.click()
    expect(page.locator(".card canvas")).to_be_visible()
    assert page.locator(".card canvas").get_attribute("width") == "640"


@pytest.mark.parametrize("device", ["desktop", "phone"])
def test_nothing_moves_when_the_answer_comes(browser: Browser, page_server: Server, device: str) -> None:
    held: list[Route] = []
    with opened(browser, page_server.url, **(PHONE if device == "phone" else {})) as page:
        page.route("**/v1/classify*", lambda route: held.append(route))
        choose(page, SHIP)
        page.wait_for_selector(".card .waiting")
        expect(page.locator(".facts")).to_contain_text("640")
        before = [page.locator(selector).bounding_box() for selector in (".card", ".card img", ".predictions", ".heat")]
        while not held:
            page.wait_for_timeout(10)
        held[0].continue_()
        classified(page, 1)
        assert before == [
            page.locator(selector).bounding_box() for selector in (".card", ".card img", ".predictions", ".heat")
        ]


def test_the_page_goes_with_the_models_that_come_and_go(browser: Browser, tmp_path: Path) -> None:
    publish_tiny(tmp_path, "tiny", "1")
    key = "a-key-of-the-administrator"
    with running(RESNET_MODEL_STORE=str(tmp_path), RESNET_WATCH_S="0", RESNET_ADMIN_KEY=key) as server:

        def order(what: str) -> None:
            address = f"{server.url}/v2/repository/models/tiny/{what}"
            httpx.post(address, headers={"authorization": f"Bearer {key}"}, timeout=60).raise_for_status()

        with opened(browser, server.url) as page:
            publish_tiny(tmp_path, "tiny", "2")
            order("load")
            assert page.get_by_label("Version").input_value() == "1"
            choose(page, SHIP)
            expect(page.locator(".who")).to_contain_text("tiny version 2")
            assert page.get_by_label("Version").input_value() == "2"

            order("unload")
            choose(page, SHIP)
            expect(page.locator(".failure:visible")).to_contain_text("No model is served just now.")
            publish_tiny(tmp_path, "tiny", "3")
            order("load")
            page.get_by_role("button", name="Try again").click()
            expect(page.locator(".who").first).to_contain_text("tiny version 3")

            order("unload")
            page.reload()
            expect(page.locator("#model-note")).to_have_text("No model is served just now.")
            choose(page, SHIP)
            expect(page.locator(".failure:visible")).to_contain_text("No model is served just now.")
            order("load")
            page.wait_for_selector("#model option[value]", state="attached")
            page.get_by_role("button", name="Try again").click()
            expect(page.locator(".who")).to_contain_text("tiny version 3")


def test_trying_again_asks_for_the_models_first(page: Page) -> None:
    page.route("**/v1/classify*", lambda route: route.fulfill(status=503, json={}))
    choose(page, SHIP)
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    page.unroute("**/v1/classify*")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.partition("/v1/")[2].partition("?")[0]))
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".prediction .label").first).to_have_text("ship")
    assert asked[:2] == ["models", "classify"]


@pytest.mark.parametrize(
    "fetched", ["Promise.reject(new TypeError())", "Promise.resolve(new Response('', {status: 502}))"]
)
def test_an_example_that_cannot_be_fetched_is_told(page: Page, fetched: str) -> None:
    page.evaluate(f"() => {{ window.kept = fetch; window.fetch = () => {fetched}; }}")
    page.get_by_role("button", name="Classify the example").click()
    expect(page.locator("#notice")).to_have_text("The example could not be fetched. Try again.")
    expect(page.locator("#empty")).to_be_visible()
    page.evaluate("() => { window.fetch = window.kept; }")
    page.get_by_role("button", name="Classify the example").click()
    classified(page, 1)
    expect(page.locator("#notice")).to_be_hidden()


def test_a_picture_that_is_removed_before_the_models_are_known_is_not_sent(page: Page) -> None:
    held: list[Route] = []
    sent: list[str] = []
    page.route("**/v1/models", lambda route: held.append(route))
    page.on("request", lambda request: sent.append(request.url) if "/v1/classify" in request.url else None)
    page.reload()
    choose(page, ("gone.jpg", SHIP.read_bytes()), SHIP)
    page.get_by_role("button", name="Remove gone.jpg").click()
    while not held:
        page.wait_for_timeout(10)
    held[0].continue_()
    classified(page, 1)
    expect(page.locator("#announce")).to_contain_text("ship.jpg: ship")
    page.wait_for_load_state("networkidle")
    assert len(sent) == 1
