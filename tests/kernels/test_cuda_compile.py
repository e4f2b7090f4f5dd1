"""The CUDA sources compile and link where there is nvcc, whether there is a device or not."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from kdplatform.kernels.build import build
from kdplatform.kernels.toolchain import ToolchainError, cuda_toolkit, cxx_compiler

ARCHITECTURE = "9.0"


@pytest.fixture(scope="module")
def library(request: pytest.FixtureRequest) -> Path:
    """The whole library for one architecture, with ptxas's report in its log.

    It is compiled once for equal sources and tools, as users' libraries are: pytest's cache keeps
    it (`pytest --cache-clear` compiles again).
    """
    try:
        cuda_toolkit((ARCHITECTURE,))
        cxx_compiler()
    except ToolchainError as error:
        pytest.skip(f"cannot build CUDA here: {error}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDPLATFORM_HOME", str(request.config.cache.mkdir("cuda")))
        patch.setenv("NVCC_APPEND_FLAGS", "-Xptxas=-v")
        return build(cuda=True, architectures=(ARCHITECTURE,))


def test_nothing_is_left_to_resolve(library):
    load = f"import ctypes, torch; ctypes.CDLL({str(library)!r}, mode=2)"  # 2: RTLD_NOW
    subprocess.run([sys.executable, "-c", load], check=True)


def test_compilers_have_nothing_to_warn_of(library):
    assert "warning" not in (library.parent / "build.log").read_text()


def test_rows_stay_in_registers(library):
    report = (library.parent / "build.log").read_text()
    kernels = re.findall(
        r"Compiling entry function '(\S+)'.*?(\d+) bytes stack frame.*?Used (\d+) registers",
        report,
        re.DOTALL,
    )
    # Without derivatives by temperatures (the first of two flags), for every access and tile but
    # that of float64, whose numbers take two registers each.
    plain = {
        name: int(stack)
        for name, stack, _ in kernels
        if re.search(r"RowKernel.*Lb0ELb.E", name) and "NumberAccessId" not in name
    }
    assert len(plain) == 3 * 3 + 1
    # The ends of 16-bit rows that begin anywhere cost a few registers more than there are.
    ragged_16_bit = {name for name in plain if re.search(r"(BFloat16|Float16)ELb1", name)}
    assert len(ragged_16_bit) == 4
    assert not any(plain[name] for name in plain.keys() - ragged_16_bit), plain
    assert all(plain[name] <= 96 for name in ragged_16_bit), plain
    assert all(int(registers) <= 128 for _, _, registers in kernels)
