"""The errors of the export, each with a one-line message for the person at the terminal.

ExportError
├── CheckpointError   export.checkpoints.weight_files: the weights cannot be read or do not fit
├── DownloadError     export.downloads.http_client: published weights cannot be had, or are not what their hash says
├── ImagesError       export.images.files: a folder or zip of images cannot be read
├── LabelsError       export.checkpoints.labels: the class names do not fit the network
├── GraphError        export.graphs.contract: the graph cannot be made or breaks its contract
├── ParityError       export.parity: the exported file does not compute what PyTorch computes
├── QuantizeError     export.variants.quantize: a graph cannot be quantized
├── GateError         export.variants.gate: a variant is refused, or cannot be compared with fp32
├── ReferenceImagesError  export.reference: images make no reference
├── StudyError        export.study.training_runs: an experiment cannot be run or compared
└── TrainingError     export.train: training cannot start or go on
"""

from __future__ import annotations

from typing import Final

from model_store.errors import Explained


class ExportError(Explained):
    """Nothing was exported; the message says why, in one line."""


# Why a network with a single output is refused.
ONE_OUTPUT: Final = "one output is a yes or no by sigmoid; the service tells one of several classes"
