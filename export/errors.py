"""The errors of the export, each with a one-line message for the person at the terminal.

ExportError
├── CheckpointError   export.checkpoints: the weights cannot be read or do not fit
├── ImagesError       export.images: a folder or zip of images cannot be read
├── LabelsError       export.labels: the class names do not fit the network
├── GraphError        export.onnx_graph: the graph cannot be made or breaks its contract
├── ParityError       export.parity: the exported file does not compute what PyTorch computes
└── TrainingError     export.train: training cannot start or go on
"""

from __future__ import annotations


class ExportError(Exception):
    """Nothing was exported; the message says why, in one line."""
