"""The generated messages are those of the .proto file, and the same on the wire as a client library's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import service_pb2

from service.grpc import open_inference_pb2 as pb
from service.grpc.methods import SERVICE

ROOT = Path(__file__).parents[3]
PROTO = "service/grpc/open_inference.proto"


def test_generated_files_are_up_to_date(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        "-I.",
        f"--python_out={tmp_path}",
        f"--pyi_out={tmp_path}",
        PROTO,
    ]
    subprocess.run(command, cwd=ROOT, check=True)
    for suffix in ("py", "pyi"):
        name = PROTO.replace(".proto", f"_pb2.{suffix}")
        assert (ROOT / name).read_text() == (tmp_path / name).read_text(), "made anew by the command in the .proto file"


def signature(message: Any) -> Any:
    fields = {(f.number, f.name, f.type, f.is_repeated, f.containing_oneof is not None) for f in message.fields}
    return fields, {nested.name: signature(nested) for nested in message.nested_types}


@pytest.mark.parametrize("name", sorted(pb.DESCRIPTOR.message_types_by_name))
def test_messages_are_tritons(name: str) -> None:
    ours, tritons = (file.DESCRIPTOR.message_types_by_name[name] for file in (pb, service_pb2))
    assert signature(ours) == signature(tritons)


def test_the_services_name_is_tritons() -> None:
    (service,) = service_pb2.DESCRIPTOR.services_by_name.values()
    assert service.full_name == SERVICE
    (ours,) = pb.DESCRIPTOR.services_by_name.values()
    for method in ours.methods:
        theirs = service.methods_by_name[method.name]
        assert method.input_type.name == theirs.input_type.name
        assert method.output_type.name == theirs.output_type.name
