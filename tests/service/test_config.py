from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.store import EMBEDDED_MODELS
from service import config
from service.config import ConfigError, Settings, fields, load_settings, reference, variable

VARIABLES = [variable(name) for _, name, _ in fields()]


def of(**environ: str) -> Settings:
    return Settings.from_env({f"RESNET_{name.upper()}": value for name, value in environ.items()})


def refused(**environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        of(**environ)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_defaults() -> None:
    found = Settings.from_env({})
    assert found == Settings()
    assert found.store.model_store == EMBEDDED_MODELS
    assert found.store.models == ()
    assert found.inference.provider == "auto"
    assert found.inference.precision == "auto"
    assert found.decode.image_formats == ("jpeg", "png", "webp")
    assert found.server.run_dir is None


def test_other_variables_are_none_of_ours() -> None:
    assert (
        Settings.from_env({"PATH": "/bin", "MAX_BATCH": "0", "XRESNET_SLOTS": "x", "resnet_slots": "x"}) == Settings()
    )


@pytest.mark.parametrize(
    ("group", "name", "text", "value"),
    [
        ("store", "model_store", "/models", Path("/models")),
        ("store", "model_store", "file:///models", Path("/models")),
        ("store", "model_store", "s3://bucket/models/", "s3://bucket/models"),
        ("store", "models", "*", ()),
        ("store", "models", " * ", ()),
        ("store", "models", "a", (("a", None),)),
        ("store", "models", "a, b@2 ,c@10", (("a", None), ("b", "2"), ("c", "10"))),
        ("store", "models", "a,,b,", (("a", None), ("b", None))),
        ("inference", "provider", "cuda", "cuda"),
        ("inference", "provider", "tensorrt", "tensorrt"),
        ("inference", "precision", "auto", "auto"),
        ("inference", "precision", "fp16", "fp16"),
        ("inference", "precision", "bf16", "bf16"),
        ("inference", "slots", "auto", "auto"),
        ("inference", "slots", "3", 3),
        ("inference", "max_batch", "256", 256),
        ("providers", "cache_dir", "/var/cache/resnet", Path("/var/cache/resnet")),
        ("providers", "gpu_device", "3", 3),
        ("providers", "gpu_memory_bytes", "4294967296", 2**32),
        ("providers", "gpu_arena", "same_as_requested", "same_as_requested"),
        ("providers", "cudnn_search", "exhaustive", "exhaustive"),
        ("providers", "cuda_graphs", "true", True),
        ("providers", "cuda_graphs", "0", False),
        ("providers", "tensorrt_workspace_bytes", "1048576", 2**20),
        ("limits", "max_queue", "1", 1),
        ("limits", "deadline_s", "0.5", 0.5),
        ("limits", "deadline_s", "3600", 3600.0),
        ("limits", "max_body_bytes", "1024", 1024),
        ("limits", "max_held_bytes", "10485760", 10 * 2**20),
        ("connections", "max_connections", "1", 1),
        ("connections", "header_timeout_s", "0.5", 0.5),
        ("connections", "body_idle_s", "3600", 3600.0),
        ("connections", "keep_alive_s", "5", 5.0),
        ("limits", "max_images", "4096", 4096),
        ("decode", "image_formats", "tiff, jpeg", ("tiff", "jpeg")),
        ("decode", "image_formats", "gif", ("gif",)),
        ("decode", "max_pixels", "1024", 1024),
        ("decode", "decode_threads", "auto", "auto"),
        ("decode", "decode_threads", "7", 7),
        ("store", "profiles", "auto", "auto"),
        ("store", "profiles", "off", "off"),
        ("store", "profiles", "/var/profiles", Path("/var/profiles")),
        ("server", "workers", "4", 4),
        ("server", "run_dir", "/run/resnet", Path("/run/resnet")),
    ],
)
def test_values_that_are_taken(group: str, name: str, text: str, value: Any) -> None:
    assert getattr(getattr(of(**{name: text}), group), name) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("profiles", ""),
        ("profiles", "on"),
        ("models", ""),
        ("models", ","),
        ("models", "a@"),
        ("models", "a@0"),
        ("models", "@1"),
        ("models", "a@1@2"),
        ("models", "A"),
        ("models", "../a"),
        ("models", "a,*"),
        ("models", "a b"),
        ("provider", "directml"),
        ("provider", "CUDA"),
        ("provider", ""),
        ("precision", "int4"),
        ("precision", "INT8"),
        ("precision", ""),
        ("slots", "0"),
        ("slots", "257"),
        ("slots", "-1"),
        ("slots", "many"),
        ("slots", "1.5"),
        ("slots", ""),
        ("max_batch", "0"),
        ("max_batch", "257"),
        ("max_batch", "0x10"),
        ("cache_dir", ""),
        ("cache_dir", "cache"),
        ("gpu_device", "-1"),
        ("gpu_device", "cuda:0"),
        ("gpu_memory_bytes", "1000"),
        ("gpu_memory_bytes", "4G"),
        ("gpu_arena", "kSameAsRequested"),
        ("cudnn_search", "HEURISTIC"),
        ("cuda_graphs", "2"),
        ("cuda_graphs", ""),
        ("tensorrt_workspace_bytes", "0"),
        ("max_queue", "0"),
        ("deadline_s", "0"),
        ("deadline_s", "-1"),
        ("deadline_s", "3601"),
        ("deadline_s", "nan"),
        ("deadline_s", "inf"),
        ("deadline_s", "10s"),
        ("max_body_bytes", "1023"),
        ("max_held_bytes", "10485759"),  # less than a body
        ("max_connections", "0"),
        ("header_timeout_s", "0"),
        ("header_timeout_s", "inf"),
        ("body_idle_s", "3601"),
        ("keep_alive_s", "nan"),
        ("max_body_bytes", "32M"),
        ("max_images", "0"),
        ("image_formats", ""),
        ("image_formats", "jpeg,svg"),
        ("image_formats", "JPEG"),
        ("max_pixels", "0"),
        ("decode_threads", "-1"),
        ("workers", "0"),
        ("workers", "all"),
        ("spread_lone_image", "maybe"),
        ("max_delay_s", "-0.1"),
        ("max_delay_s", "2"),
        ("preferred_batches", "0"),
        ("preferred_batches", "4,9"),
        ("preferred_batches", "4;8"),
    ],
)
def test_values_that_are_refused_name_the_variable(name: str, text: str) -> None:
    assert refused(**{name: text}).startswith(f"RESNET_{name.upper()}")


@pytest.mark.parametrize("name", ["model_store", "run_dir"])
def test_an_empty_path_is_not_the_current_folder(name: str) -> None:
    """``RESNET_RUN_DIR=${UNSET}`` must not make the service tidy up where it stands."""
    for text in ("", "  "):
        with contextlib.suppress(ConfigError):
            found = of(**{name: text})
            group = found.store if name == "model_store" else found.server
            assert getattr(group, name) not in (Path(), Path(text))


def test_a_url_that_is_refused_is_not_shown() -> None:
    told = refused(model_store="https://me:a-password@host/models")
    assert told.startswith("RESNET_MODEL_STORE: ")
    assert "a-password" not in told


def test_a_model_is_not_served_twice() -> None:
    with pytest.raises(ConfigError):
        of(models="a,b@1,a")


def test_a_request_that_is_allowed_can_fit_into_the_queue() -> None:
    """Else a request of ``max_images`` is told to try again for ever."""
    assert of(max_queue="10", max_images="64").limits.images_per_request == 10
    assert of(max_queue="100", max_images="64").limits.images_per_request == 64


def test_the_message_says_what_would_be_right() -> None:
    assert "256" in refused(max_batch="1000")
    assert "auto" in refused(slots="many")
    assert "integer" in refused(slots="many")
    assert "'cuda'" in refused(provider="gpu")
    assert "svg" in refused(image_formats="svg")


def test_an_unknown_name_is_refused_with_the_closest_known() -> None:
    assert "did you mean RESNET_MAX_BATCH?" in refused(max_batchs="1")
    assert "RESNET_SLOTS" in refused(zzzzzzzzzzzz="1")
    with pytest.raises(ConfigError, match="RESNET_ "):
        Settings.from_env({"RESNET_": "1"})


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().limits.max_queue = 3  # type: ignore[misc]


def test_the_process_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RESNET_MAX_BATCH", "5")
    assert load_settings().inference.max_batch == 5


def test_names_of_settings_are_unique() -> None:
    assert len(VARIABLES) == len(set(VARIABLES))


def test_the_reference_lists_every_variable_with_default_and_meaning() -> None:
    page = reference()
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert list(rows) == VARIABLES
    for _, name, field in fields():
        assert field.description
        assert field.description in rows[variable(name)]
        assert rows[variable(name)].count("|") == 4, "a | in the text would break the table"
    assert "`jpeg,png,webp`" in rows["RESNET_IMAGE_FORMATS"]
    assert "`true`" in rows["RESNET_CUDA_GRAPHS"]
    assert str(EMBEDDED_MODELS.parent.parent) not in page


def test_the_page_in_docs_is_the_reference() -> None:
    page = Path(config.__file__).parents[1] / "docs" / "configuration.md"
    if not page.exists():
        pytest.skip("docs/configuration.md is not written yet")
    assert page.read_text(encoding="utf-8") == reference()


_ANY_TEXT = st.text(max_size=30) | st.text("0123456789.-+eE_ ,*@abjpegn", max_size=12)


@settings(max_examples=300)
@given(name=st.sampled_from(VARIABLES), value=_ANY_TEXT)
def test_any_text_is_taken_or_refused_in_one_line(name: str, value: str) -> None:
    try:
        found = Settings.from_env({name: value})
    except ConfigError as error:
        message = str(error)
    else:
        assert isinstance(found, Settings)
        return
    assert message.startswith(name)
    assert len(message.splitlines()) == 1


@given(st.dictionaries(st.text(max_size=8).map(lambda text: "RESNET_" + text), _ANY_TEXT, min_size=1, max_size=3))
def test_any_unknown_name_is_refused(environ: dict[str, str]) -> None:
    if set(environ) & set(VARIABLES):
        return
    with pytest.raises(ConfigError, match="is no setting"):
        Settings.from_env(environ)


_NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True)
_VERSIONS = st.none() | st.integers(1, 999_999_999).map(str)


@given(st.lists(st.tuples(_NAMES, _VERSIONS), min_size=1, max_size=4, unique_by=lambda pair: pair[0]))
def test_model_references_round_trip(references: list[tuple[str, str | None]]) -> None:
    text = ", ".join(name if version is None else f"{name}@{version}" for name, version in references)
    assert of(models=text).store.models == tuple(references)


@given(workers=st.integers(-5, 300), deadline=st.floats(allow_nan=True))
def test_numbers_are_taken_within_their_bounds_alone(workers: int, deadline: float) -> None:
    for name, value, good in (
        ("workers", workers, 1 <= workers <= 256),
        ("deadline_s", deadline, 0 < deadline <= 3600),
    ):
        if good:
            of(**{name: repr(value)})
        else:
            refused(**{name: repr(value)})


@pytest.mark.parametrize(
    ("value", "on_cpu", "threads"),
    [("auto", True, 0), ("auto", False, 4), (0, False, 0), (9, True, 9)],
)
def test_how_many_decode_threads(value: object, on_cpu: bool, threads: int) -> None:
    settings = Settings.from_env({"RESNET_DECODE_THREADS": str(value)})
    assert settings.decode.threads(4, on_cpu) == threads
    assert settings.decode.threads(1000, on_cpu) <= 256


def test_a_kubernetes_service_called_resnet_grpc_is_no_setting() -> None:
    """Beside it every pod has RESNET_GRPC_PORT and more."""
    environ = {"RESNET_GRPC_PORT": "tcp://10.0.0.1:8001", "RESNET_GRPC_PORT_8001_TCP_ADDR": "10.0.0.1"}
    assert Settings.from_env(environ) == Settings()
    assert of(grpc_port="8001").server.grpc_port == 8001
    assert of(http_port="udp://10.0.0.1:8001", http_port_8001_sctp="sctp://10.0.0.1:8001") == Settings()
    assert "RESNET_HTTP_PORT is no setting" in refused(http_port="8001")
    assert "RESNET_GRCP_PORT is no setting; did you mean RESNET_GRPC_PORT?" in refused(grcp_port="8001")
    assert "RESNET_GRPC_PORT='70000'" in refused(grpc_port="70000")
    assert "RESNET_GRPC_PORT='8001/tcp'" in refused(grpc_port="8001/tcp")


@pytest.mark.parametrize(
    "key", ["short", "x" * 15, "with a blank in it", "ümlautümlautümlaut", "x" * 1025, "tab\there-is-no-key"]
)
def test_a_wrong_key_is_refused_and_not_shown(key: str) -> None:
    message = refused(admin_key=key)
    assert message.startswith("RESNET_ADMIN_KEY: must be 16 to 1024 printable")
    assert key not in message


def test_the_key_is_not_shown() -> None:
    settings = of(admin_key="k" * 16)
    assert settings.access.admin_key is not None
    assert settings.access.admin_key.get_secret_value() == "k" * 16
    assert "kkk" not in repr(settings) + str(settings) + settings.model_dump_json()
