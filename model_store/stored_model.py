"""One version of a model, as it lies in a folder."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from model_store.manifest import File, Manifest, Precision, Variant
from model_store.onnx_data import keeps_weights_outside
from model_store.verified import StoreError, read_verified, verify_file


@dataclass(frozen=True)
class StoredModel:
    """One version of a model: its folder and its manifest."""

    folder: Path
    manifest: Manifest

    def path(self, file: File) -> Path:
        return self.folder / file.file

    def variant(self, precision: Precision) -> Variant:
        """The variant in ``precision``; ``StoreError`` says which there are instead."""
        variant = self.manifest.variant(precision)
        if variant is None:
            there = ", ".join(v.precision for v in self.manifest.variants)
            raise StoreError(f"{self.folder}: the manifest has no {precision} variant; there: {there}")
        return variant

    def labels(self) -> tuple[str, ...]:
        """The classes' names, by index; one a line in the labels file, which is read once."""
        return self._labels

    @functools.cached_property
    def _labels(self) -> tuple[str, ...]:
        path = self.path(self.manifest.labels)
        try:
            text = read_verified(path, self.manifest.labels).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError as error:
            raise StoreError(f"{path}: the labels cannot be read: {error}") from error
        labels = tuple(text.removesuffix("\n").split("\n"))
        if len(labels) != self.manifest.outputs.classes:
            raise StoreError(f"{self.folder}: {len(labels)} labels for {self.manifest.outputs.classes} classes")
        return labels

    def read_graph(self, variant: Variant) -> bytes:
        """The variant's file, whole and verified as by ``verify``: what was hashed is what is run, whatever becomes of
        the file.
        """
        path = self.path(variant)
        graph = read_verified(path, variant)
        _check_self_contained(path, graph)
        return graph

    def verify(self) -> None:
        """Compare every file with the manifest's size and hash; ``StoreError`` names the first that differs.

        A graph must hold all of its weights too: those in another file would be none of these.
        """
        for file in self.manifest.files:
            verify_file(self.path(file), file)
        for path in sorted({self.path(variant) for variant in self.manifest.variants}):
            _check_self_contained(path, path)


def _check_self_contained(path: Path, graph: Path | bytes) -> None:
    try:
        outside = keeps_weights_outside(graph)
    except ValueError as error:
        raise StoreError(f"{path}: {error}") from error
    if outside:
        raise StoreError(f"{path}: it keeps weights in another file, which no hash pins; save it in one piece")
