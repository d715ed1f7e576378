"""Names for versions, a file each: ``NAME/PROMOTED`` for ``stable``, ``NAME/aliases/ALIAS`` for any other.

A file holds a version's number and is replaced as a whole, so whoever reads it sees the old one or the new one, and
two aliases that are set at the same time do not undo each other.
"""

from __future__ import annotations

import contextlib
import errno
import tempfile
from pathlib import Path
from typing import Final

from model_store.durable import sync
from model_store.names import STABLE, check_alias, check_version, is_alias
from model_store.plain_files import read_plain
from model_store.staging import STAGING_PREFIX

PROMOTED_FILE: Final = "PROMOTED"
ALIASES_FOLDER: Final = "aliases"
_MAX_BYTES: Final = 64


def alias_file(folder: Path, alias: str) -> Path:
    """Where ``alias`` of the model in ``folder`` is kept; ``ValueError`` where it is none."""
    return folder / PROMOTED_FILE if alias == STABLE else folder / ALIASES_FOLDER / check_alias(alias)


def read_alias(folder: Path, alias: str) -> str | None:
    """The version that ``alias`` names, None where it is not set; ``ValueError`` where its file holds none."""
    path = alias_file(folder, alias)
    try:
        _check_own(path.parent, folder)
        return check_version(read_plain(path, _MAX_BYTES).decode("ascii").strip())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error


def list_aliases(folder: Path) -> list[str]:
    """The aliases that are set besides ``stable``, sorted; files of other names are none.

    ``ValueError`` where the folder cannot be read.
    """
    try:
        _check_own(folder / ALIASES_FOLDER, folder)
        names = [path.name for path in (folder / ALIASES_FOLDER).iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ValueError(f"{folder / ALIASES_FOLDER}: cannot be read: {error}") from error
    return sorted(name for name in names if is_alias(name) and name != STABLE)


def write_alias(folder: Path, alias: str, version: str | None) -> None:
    """Make ``alias`` name ``version``, in one step; None takes the alias away."""
    path = alias_file(folder, alias)
    _check_own(path.parent, folder)
    if version is None:
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others are there, or it never was
            (folder / ALIASES_FOLDER).rmdir()
        sync(folder)
        return
    path.parent.mkdir(exist_ok=True)
    sync(folder)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=STAGING_PREFIX, delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(f"{version}\n")
            file.flush()
            temporary.chmod(0o644)
            sync(temporary)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    sync(path.parent)


def _check_own(aliases: Path, folder: Path) -> None:
    """``OSError`` where the folder of aliases is a link: what it leads to may be anybody's."""
    if aliases != folder and aliases.is_symlink():
        raise OSError(errno.ELOOP, "a link, which is not followed", str(aliases))
