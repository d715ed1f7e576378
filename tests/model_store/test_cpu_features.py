"""What /proc/cpuinfo tells, of processors of all kinds, and of files that tell nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_store.cpu_features import CPUINFO, CpuFeatures, cpu_features

X86 = "processor\t: {core}\nvendor_id\t: GenuineIntel\nflags\t\t: fpu sse2 avx2 {flags}\nbogomips\t: 4000.00\n\n"
ARM = "processor\t: {core}\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd crc32 {flags}\nCPU part\t: 0xd0c\n\n"


def cpuinfo(folder: Path, *cores: str, form: str = X86) -> Path:
    """A file like /proc/cpuinfo, with a core for each of ``cores``, which are its flags."""
    path = folder / "cpuinfo"
    path.write_text("".join(form.format(core=i, flags=flags) for i, flags in enumerate(cores)))
    return path


@pytest.mark.parametrize(
    ("flags", "int8_dot", "bf16"),
    [
        ("", False, False),
        ("avx512f avx512bw avx512vl", False, False),  # Skylake: int8 without VNNI saturates
        ("avx512f avx512_vnni", True, False),  # Cascade Lake
        ("avx512f avx512_vnni avx512_bf16", True, True),  # Cooper Lake, Zen 4
        ("avx512_vnni avx512_bf16 amx_bf16 amx_tile amx_int8", True, True),  # Sapphire Rapids
        ("avx_vnni", True, False),  # Alder Lake
        ("avx512_vnni_like xavx_vnni amx_bf16x", False, False),
    ],
)
def test_x86(tmp_path: Path, flags: str, int8_dot: bool, bf16: bool) -> None:
    assert cpu_features(cpuinfo(tmp_path, flags, flags)) == CpuFeatures(int8_dot, bf16)


@pytest.mark.parametrize(("flags", "int8_dot"), [("", False), ("asimddp", True), ("i8mm bf16", True)])
def test_arm(tmp_path: Path, flags: str, int8_dot: bool) -> None:
    """OpenVINO's plugin is for x86 alone, and with it bf16."""
    assert cpu_features(cpuinfo(tmp_path, flags, form=ARM)) == CpuFeatures(int8_dot, bf16=False)


def test_what_one_core_lacks_is_not_there(tmp_path: Path) -> None:
    assert cpu_features(cpuinfo(tmp_path, "avx_vnni amx_bf16", "avx_vnni")) == CpuFeatures(int8_dot=True, bf16=False)


@pytest.mark.parametrize("content", [b"", b"flags", b"Hardware : avx_vnni\n", b"\xff\xfe\x00 : avx_vnni"])
def test_what_tells_nothing_is_not_assumed_to_have_anything(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cpuinfo"
    path.write_bytes(content)
    assert cpu_features(path) == CpuFeatures(int8_dot=False, bf16=False)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert cpu_features(tmp_path / "absent") == CpuFeatures(int8_dot=False, bf16=False)
    assert cpu_features(tmp_path) == CpuFeatures(int8_dot=False, bf16=False)


def test_this_machine_by_default() -> None:
    assert cpu_features() == cpu_features(CPUINFO)
