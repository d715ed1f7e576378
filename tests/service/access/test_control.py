"""Keys in force: from the environment and from files, that change while the service runs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from service.access.control import Access
from service.access.keys import line_of
from service.config import ConfigError, Settings, shown
from tests.service.conftest import eventually

ADMIN = "an-administrators-key"


def access(workers: int = 1, **environ: object) -> Access:
    settings = Settings.from_env({f"RESNET_{name.upper()}": str(value) for name, value in environ.items()})
    return Access(settings.access, workers)


def holder(of: Access, key: str) -> str | None:
    assert of.keys is not None
    found = of.keys.holder(key)
    return None if found is None else found.name


def look(of: Access) -> None:
    asyncio.run(of.look())


def test_without_keys_nobody_is_asked() -> None:
    assert access().keys is None
    assert not access().has_admin
    assert not access().is_admin("")


def test_keys_of_the_environment() -> None:
    found = access(api_keys=f"{line_of('a', 'key-a')},{line_of('b', 'key-b')}")
    assert [holder(found, key) for key in ("key-a", "key-b", "key-c", "", "key-a ", "\xff" * 2000)] == [
        "a", "b", None, None, None, None,
    ]  # fmt: skip


def test_a_name_has_the_same_limits_in_both_places(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "keys"
    file.write_text(line_of("somebody", "one-key-of-many", images_per_s=1))
    given = line_of("somebody", "another-key-of-many")
    with pytest.raises(ConfigError, match="'somebody' have different limits"):
        access(api_keys_file=file, api_keys=given)
    file.write_text(line_of("somebody", "one-key-of-many"))
    both = access(api_keys_file=file, api_keys=given)
    assert holder(both, "one-key-of-many") == holder(both, "another-key-of-many") == "somebody"


def test_a_file_is_read_again_when_it_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys"
    path.write_text(line_of("a", "key-a", images_per_s=1))
    found = access(api_keys_file=path, api_keys=line_of("always", "key-of-the-environment"))
    assert found.keys is not None
    before = found.keys.holder("key-a")
    assert before is not None
    before.take(1, 0)
    written = path.stat()
    path.write_text(line_of("a", "key-2", images_per_s=1))  # as long as before, and said to be as old
    os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns))
    look(found)
    assert [holder(found, key) for key in ("key-a", "key-2", "key-of-the-environment")] == [None, "a", "always"]
    assert found.keys.holder("key-2") is before, "who holds the new key is who held the old one"
    path.write_text("")
    look(found)
    assert holder(found, "key-2") is None
    assert found.keys is not None, "a service whose last key is gone is not open"
    assert "key-" not in caplog.text


def test_what_cannot_be_read_changes_nothing_and_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys"
    path.write_text(line_of("a", "key-a"))
    found = access(api_keys_file=path)
    path.write_text("b key-in-plain-text")
    for _ in range(3):
        look(found)
    assert holder(found, "key-a") == "a"
    path.unlink()
    for _ in range(3):
        look(found)
    assert holder(found, "key-a") == "a"
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 2
    assert "plain-text" not in caplog.text
    path.write_text(line_of("b", "key-b"))
    look(found)
    assert [holder(found, "key-a"), holder(found, "key-b")] == [None, "b"]


def test_the_files_are_looked_at_while_the_service_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.access.control._LOOK_S", 0.001)
    path = tmp_path / "keys"
    path.write_text("")

    async def main() -> None:
        found = access(api_keys_file=path)
        watching = asyncio.create_task(found.watch())
        path.write_text(line_of("a", "key-a"))
        await eventually(lambda: holder(found, "key-a") == "a", "the new key")
        watching.cancel()
        await asyncio.wait([watching])

    asyncio.run(main())


@pytest.mark.parametrize("content", [None, "app key-in-plain-text", b"\xff\xfe", b"#" * (2**20 + 1)])
def test_a_file_that_is_no_file_of_keys_stops_the_start(tmp_path: Path, content: str | bytes | None) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError, match="RESNET_API_KEYS_FILE") as raised:
        access(api_keys_file=path)
    assert "plain-text" not in str(raised.value)


def test_the_admin_key_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "admin"
    path.write_text(f"{ADMIN}\n")
    found = access(admin_key_file=path)
    assert found.has_admin
    assert [found.is_admin(key) for key in (ADMIN, "", ADMIN[:-1], f"{ADMIN}x", "x" * 5000)] == [True] + [False] * 4
    path.write_text("another-long-admin-key")
    look(found)
    assert [found.is_admin(ADMIN), found.is_admin("another-long-admin-key")] == [False, True]
    path.write_text("short")
    look(found)
    assert found.is_admin("another-long-admin-key")


def test_an_admin_key_in_a_file_is_as_long_as_any(tmp_path: Path) -> None:
    path = tmp_path / "admin"
    path.write_text("short")
    with pytest.raises(ConfigError, match=r"RESNET_ADMIN_KEY_FILE.*16 to 1024"):
        access(admin_key_file=path)


@pytest.mark.parametrize(
    ("environ", "fault"),
    [
        ({"api_keys": "app a-key-in-plain-text"}, "RESNET_API_KEYS: "),
        ({"api_keys": " , "}, "RESNET_API_KEYS: "),
        ({"api_keys_file": "keys"}, "RESNET_API_KEYS_FILE="),
        ({"admin_key": ADMIN, "admin_key_file": "/admin"}, "RESNET_ADMIN_KEY_FILE="),
        ({"tls_cert": "/cert"}, "RESNET_TLS_KEY"),
        ({"tls_key": "/key"}, "RESNET_TLS_KEY"),
        ({"tls_client_ca": "/ca"}, "RESNET_TLS_CLIENT_CA"),
        ({"key_burst": "0"}, "RESNET_KEY_BURST"),
        ({"cors_origins": "*"}, "RESNET_CORS_ORIGINS"),
        ({"cors_origins": "https://a.example/"}, "RESNET_CORS_ORIGINS"),
        ({"cors_origins": "https://A.example"}, "RESNET_CORS_ORIGINS"),
        ({"cors_origins": "null"}, "RESNET_CORS_ORIGINS"),
        ({"cors_origins": "a.example"}, "RESNET_CORS_ORIGINS"),
    ],
)
def test_wrong_settings_name_their_variable(environ: dict[str, str], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault) as raised:
        access(**environ)
    assert "plain-text" not in str(raised.value)
    assert ADMIN not in str(raised.value)


def test_settings_show_no_key() -> None:
    keys = line_of("app", "key-a")
    settings = Settings.from_env({"RESNET_API_KEYS": keys, "RESNET_ADMIN_KEY": ADMIN})
    values = shown(settings)
    assert (values["RESNET_API_KEYS"], values["RESNET_ADMIN_KEY"]) == ("set", "set")
    assert not [secret for secret in (keys, ADMIN) if secret in repr(settings) + str(values)]
