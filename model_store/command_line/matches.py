"""What a pattern matched, with each file in it once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


def once(matches: Mapping[str, bool]) -> list[str]:
    """Paths without those that come with another, sorted; ``matches`` says of each whether it is a folder.

    A pattern with ``**`` matches files and every folder above them. Such a folder is left out, as its files are there
    by themselves. Other folders stand for all that is in them, those that match below them too.
    """
    files = {path for path, is_folder in matches.items() if not is_folder}
    of_files = {above for path in files for above in _above(path)}
    folders = matches.keys() - files - of_files
    return sorted(files | {path for path in folders if folders.isdisjoint(_above(path))})


def _above(path: str) -> Iterator[str]:
    """The folders that ``path`` is in."""
    while path := path.rstrip("/").rpartition("/")[0]:
        yield path
