"""Files as the origins write them, made by the origins' own code where it is small enough to run."""

from __future__ import annotations

import json
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from export.networks.build import build
from export.networks.specs import get_spec

from .conftest import perturb

# The smallest networks that transformers and we both build.
TINY_CONFIG: Mapping[str, Any] = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "layer_type": "basic"}
CONVNEXT: Mapping[str, Any] = {
    "image_processor_type": "ConvNextImageProcessor",
    "size": {"shortest_edge": 32},
    "crop_pct": 0.8,
    "do_normalize": True,
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.25, 0.3],
    "resample": 3,
}


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def hugging_face_model(names: tuple[str, ...] | None = ("cat", "dog", "cow"), **changes: Any) -> nn.Module:
    """transformers' ``ResNetForImageClassification``, tiny unless ``changes`` say otherwise."""
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    settings: dict[str, Any] = {**TINY_CONFIG, **changes}
    if names is None:
        settings["num_labels"] = 3
    else:
        settings["id2label"] = dict(enumerate(names))
        settings["label2id"] = {name: i for i, name in enumerate(names)}
    model: nn.Module = ResNetForImageClassification(ResNetConfig(**settings)).eval()
    return perturb(model)


def hugging_face_folder(
    folder: Path, model: nn.Module | None = None, preprocessor: Mapping[str, Any] | None = CONVNEXT
) -> Path:
    """What ``save_pretrained`` writes, and a ``preprocessor_config.json``."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    (model or hugging_face_model()).save_pretrained(folder)  # type: ignore[operator]
    if preprocessor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def timm_folder(folder: Path, state: Mapping[str, Tensor], architecture: str, **pretrained_cfg: Any) -> Path:
    """A folder of timm's ``save_for_hf`` with these weights."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state), folder / "pytorch_model.bin")
    classes = next(len(value) for key, value in state.items() if key in ("fc.weight", "head.fc.weight"))
    config = {
        "architecture": architecture,
        "num_classes": classes,
        "global_pool": "avg",
        "model_args": {"num_classes": classes, "in_chans": 3, "global_pool": "avg"},
        "pretrained_cfg": {"tag": "a1_in1k", "fixed_input_size": False, "classifier": "fc", **pretrained_cfg},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def lightning_checkpoint(path: Path, state: Mapping[str, Tensor], prefix: str = "model.", **beside: Any) -> Path:
    """What a Lightning trainer saves: https://lightning.ai/docs/pytorch/stable/common/checkpointing_basic.html."""
    content = {
        "epoch": 3,
        "global_step": 120,
        "pytorch-lightning_version": "2.5.1",
        "state_dict": {prefix + key: value for key, value in state.items()},
        "loops": {},
        "callbacks": {},
        "optimizer_states": [],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"learning_rate": 0.1},
    }
    return save(path, content | beside)


def torch_export_archive(path: Path, net: nn.Module, size: int) -> Path:
    """What ``torch.export.save`` writes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(net.eval(), (torch.zeros(1, 3, size, size),))
        torch.export.save(program, path)
    return path


def onnx_file(path: Path, net: nn.Module, size: int, batch: int = 1) -> Path:
    """What ``torch.onnx.export`` writes without being told of dynamic shapes: the batch is fixed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            net.eval(), (torch.zeros(batch, 3, size, size),), dynamo=True, external_data=False, verbose=False
        )
    assert program is not None
    path.write_bytes(program.model_proto.SerializeToString())
    return path


def safetensors_bytes(header: Mapping[str, Any] | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file by hand, its header's ``length`` a lie if given."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def documented_inputs(folder: Path) -> Path:
    """Every file that the commands in docs/checkpoints.md name, of small networks with ten classes; ``folder``."""
    cifar, imagenet = (perturb(build(get_spec(name), 10, seed=0)) for name in ("cifar_resnet20", "resnet18"))
    state = cifar.state_dict()
    save(folder / "weights.pth", state)
    save(folder / "resnet18.pth", imagenet.state_dict())
    save(folder / "ddp.pth", {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}})
    save(folder / "ema.pth", {"state_dict": state, "state_dict_ema": {k: v.clone() for k, v in state.items()}})
    lightning_checkpoint(folder / "lightning.ckpt", state)
    torch_export_archive(folder / "program.pt2", cifar, 32)
    onnx_file(folder / "network.onnx", cifar, 32)
    timm_folder(folder / "timm-folder", imagenet.state_dict(), "resnet18")
    hugging_face_folder(folder / "huggingface-folder")
    (folder / "labels.txt").write_text("".join(f"thing {i}\n" for i in range(10)))
    return folder
