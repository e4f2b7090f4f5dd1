"""Everything a build of the kernels depends on: sources, compilers, flags, and their key."""

import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from kdplatform.shipped import changed_since_installed, shipped

MODULE_NAME = "kdplatform_kernels"
SOURCES = shipped("csrc")
CUDA_ARCHITECTURES = ("8.0", "8.6", "8.9", "9.0", "10.0", "12.0")

_OPTIMISE = ("-O3", "-std=c++20", "-fPIC", "-fvisibility=hidden")
# Both concern only traps and errno. Unlike -ffast-math they keep inf and NaN.
_BODY = (*_OPTIMISE, "-fno-math-errno", "-fno-trapping-math")
# The sources choose the fused operations. Contracting q - p would give a nonzero gradient where
# student and teacher agree.
_X86_BODIES = {
    "body_avx512.cpp": (
        *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq"),
        *("-mfma", "-mf16c", "-ffp-contract=off"),
    ),
    "body_avx2.cpp": ("-mavx2", "-mfma", "-mf16c", "-ffp-contract=off"),
}
_GIB = 1 << 30
# The memory of one compiler process, so that a small machine does not swap.
_MEMORY_PER_JOB = 2 * _GIB


class ToolchainError(RuntimeError):
    """The kernels cannot be built here. The message is one line that names what is missing."""


@dataclass(frozen=True)
class Cuda:
    """A CUDA toolkit and the architectures to build for, as "9.0", in rising order."""

    home: Path
    architectures: tuple[str, ...]


@dataclass(frozen=True)
class Command:
    """One compiler call: `tool arguments -c source -o target`."""

    arguments: tuple[str, ...]
    source: Path
    target: str


def source_files() -> list[Path]:
    """Returns every file that goes into the extension.

    Raises:
        ToolchainError: this installation lacks the sources, or they have changed.
    """
    files = sorted(
        path for path in SOURCES.rglob("*") if path.suffix in {".h", ".cuh", ".cpp", ".cu"}
    )
    if not files:
        raise ToolchainError(f"no sources at {SOURCES}; install the package anew")
    if changed := changed_since_installed(SOURCES):
        raise ToolchainError(
            f"{len(changed)} of the sources in {SOURCES} are not those that were installed "
            f"({changed[0]}); install the package anew"
        )
    return files


def cache_folder() -> Path:
    """Returns the folder of builds: `$KDPLATFORM_HOME/kernels`, else under the user's cache.

    Raises:
        ToolchainError: `~` or `~user` in them has no folder.
    """
    home = os.environ.get("KDPLATFORM_HOME")
    cache = home or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        folder = Path(cache).expanduser()
    except RuntimeError:
        raise ToolchainError(f"no folder for builds: {cache!r} has no home folder") from None
    return (folder if home else folder / "kdplatform") / "kernels"


def build_key(architectures: tuple[str, ...]) -> str:
    """Returns the name of a build: a hash of everything that its bytes depend on.

    Of the CPU only the machine type enters. The library has every body, and the best one is chosen
    at load time, so that one cache on a shared disk serves old and new CPUs.
    """
    digest = hashlib.sha256()
    for path in source_files():
        if path.parent.name == "cuda" and not architectures:
            continue
        content = path.read_bytes()
        digest.update(f"{path.relative_to(SOURCES)} {len(content)}\n".encode() + content)
    settings = (
        sys.implementation.cache_tag,
        platform.system(),
        platform.machine(),
        torch.__version__,
        torch.version.cuda if architectures else None,
        architectures,
        _BODY,
        _X86_BODIES,
    )
    digest.update(repr(settings).encode())
    kind = "cuda" if architectures else "cpu"
    return f"{kind}-torch{torch.__version__.partition('+')[0]}-{digest.hexdigest()[:16]}"


def library_path(architectures: tuple[str, ...]) -> Path:
    """Returns the path of this build's library, which need not exist."""
    return cache_folder() / build_key(architectures) / f"{MODULE_NAME}.so"


def cxx_compiler() -> str:
    """Returns the C++ compiler: `$CXX`, or the first of c++, g++ and clang++ on PATH.

    Raises:
        ToolchainError: there is none.
    """
    if chosen := os.environ.get("CXX"):
        if found := shutil.which(chosen):
            return found
        raise ToolchainError(f"CXX={chosen!r} does not exist; allowed: a C++20 compiler")
    for name in ("c++", "g++", "clang++"):
        if found := shutil.which(name):
            return found
    raise ToolchainError("no C++ compiler on PATH (c++, g++ or clang++)")


def ninja_program() -> str:
    """Returns the ninja program, of the package or on PATH.

    Raises:
        ToolchainError: there is none.
    """
    try:
        import ninja
    except ImportError:
        pass
    else:
        packaged = Path(ninja.BIN_DIR) / "ninja"
        if packaged.exists():
            return str(packaged)
    if found := shutil.which("ninja"):
        return found
    raise ToolchainError("no ninja (install with: pip install ninja)")


def cuda_home() -> Path:
    """Returns the root of a CUDA toolkit that has both the compiler and its headers.

    `nvcc` on PATH may be a wrapper in a folder without headers, so a candidate needs
    `include/cuda_runtime.h`.

    Raises:
        ToolchainError: there is none.
    """
    for root in _cuda_candidates():
        if (root / "include" / "cuda_runtime.h").exists() and (root / "bin" / "nvcc").exists():
            return root
    raise ToolchainError("no CUDA toolkit (set CUDA_HOME to a folder with bin/nvcc and include/)")


def _cuda_candidates() -> Iterator[Path]:
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if value := os.environ.get(name):
            yield Path(value)
    if nvcc := shutil.which("nvcc"):
        yield Path(nvcc).resolve().parent.parent
    yield Path("/usr/local/cuda")
    for folder in sys.path:
        yield from sorted(Path(folder).glob("nvidia/cu[0-9]*"))


def cuda_toolkit(architectures: tuple[str, ...] | None = None) -> Cuda:
    """Returns the toolkit and the architectures to build for.

    Args:
        architectures: as "9.0". None: `$KDPLATFORM_CUDA_ARCHITECTURES` (such as "8.0 9.0"), else
            every one of `CUDA_ARCHITECTURES` that this nvcc knows.

    Raises:
        ToolchainError: no toolkit, or an architecture that it does not know.
    """
    home = cuda_home()
    known = _known_architectures(home)
    if architectures is None:
        text = os.environ.get("KDPLATFORM_CUDA_ARCHITECTURES", "")
        architectures = tuple(text.replace(",", " ").replace(";", " ").split())
    if not architectures:
        return Cuda(home, tuple(name for name in CUDA_ARCHITECTURES if name in known))
    for name in architectures:
        if name not in known:
            raise ToolchainError(
                f"CUDA architecture {name!r} is unknown to {home}/bin/nvcc; "
                f"allowed: {' '.join(known)}"
            )
    return Cuda(home, tuple(sorted(set(architectures), key=_version)))


@functools.cache
def _known_architectures(home: Path) -> tuple[str, ...]:
    listed = subprocess.run(
        [home / "bin" / "nvcc", "--list-gpu-arch"], capture_output=True, text=True, check=False
    ).stdout
    numbers = sorted({int(digits) for digits in re.findall(r"compute_(\d+)", listed)})
    return tuple(f"{number // 10}.{number % 10}" for number in numbers)


def covers(architectures: Sequence[str], devices: Sequence[str]) -> bool:
    """Returns whether a library built for these architectures runs on all of these devices.

    Binary code runs on devices of its major version and of no lower minor version. A driver
    compiles the PTX, which is of the last architecture, for any device that is not older.
    """
    built = [_version(name) for name in architectures]
    return all(
        built[-1] <= device or any(own[0] == device[0] and own <= device for own in built)
        for device in map(_version, devices)
    )


def _version(architecture: str) -> tuple[int, ...]:
    return tuple(map(int, architecture.split(".")))


def compile_commands(compiler: str, cuda: Cuda | None) -> list[Command]:
    """Returns one compiler call for each source file."""
    x86 = platform.machine().lower() in {"x86_64", "amd64"}
    launcher = tuple(filter(None, [shutil.which("ccache")]))
    driver_flags = (*_OPTIMISE, *_torch_includes(), "-fopenmp")
    if x86:
        driver_flags += ("-DKD_WITH_X86_BODIES",)
    commands = [
        Command((*launcher, compiler, *_binding_flags(cuda)), SOURCES / "binding.cpp", "binding.o"),
        Command((*launcher, compiler, *driver_flags), SOURCES / "cpu/driver.cpp", "driver.o"),
        Command((*launcher, compiler, *_BODY), SOURCES / "cpu/body_plain.cpp", "body_plain.o"),
    ]
    for name, flags in _X86_BODIES.items() if x86 else ():
        arguments = (*launcher, compiler, *_BODY, *flags)
        commands.append(Command(arguments, SOURCES / "cpu" / name, name.replace(".cpp", ".o")))
    if cuda is not None:
        nvcc = (*launcher, str(cuda.home / "bin" / "nvcc"), *_nvcc_flags(compiler, cuda))
        for path in sorted((SOURCES / "cuda").glob("*.cu")):
            commands.append(Command(nvcc, path, f"cuda_{path.stem}.o"))
        for number in ("float", "BFloat16", "Float16"):
            arguments = (*nvcc, f"-DKD_ROWS_OF={number}")
            commands.append(Command(arguments, SOURCES / "cuda/rows.cu", f"cuda_rows_{number}.o"))
    return commands


def _torch_includes() -> tuple[str, ...]:
    root = Path(torch.__file__).parent / "include"
    return ("-isystem", str(root), "-isystem", str(root / "torch/csrc/api/include"))


def _binding_flags(cuda: Cuda | None) -> tuple[str, ...]:
    import sysconfig

    import pybind11

    # -O1: the file is glue, and its headers take most of the build's time.
    flags = (
        *(flag for flag in _OPTIMISE if flag != "-O3"),
        "-O1",
        *_torch_includes(),
        "-isystem",
        sysconfig.get_path("include"),
        "-isystem",
        pybind11.get_include(),
        f"-DKD_MODULE_NAME={MODULE_NAME}",
    )
    if cuda is None:
        return flags
    return (
        *flags,
        "-isystem",
        str(cuda.home / "include"),
        "-DKD_WITH_CUDA",
        f'-DKD_CUDA_ARCHITECTURES="{" ".join(cuda.architectures)}"',
    )


def _nvcc_flags(compiler: str, cuda: Cuda) -> tuple[str, ...]:
    codes = [name.replace(".", "") for name in cuda.architectures]
    targets = [f"-gencode=arch=compute_{code},code=sm_{code}" for code in codes]
    # PTX of the newest architecture, which a driver compiles for later devices; see `covers`.
    targets.append(f"-gencode=arch=compute_{codes[-1]},code=compute_{codes[-1]}")
    return (
        "-O3",
        "-std=c++20",
        "--expt-relaxed-constexpr",
        "-Xcompiler=-fPIC,-fvisibility=hidden",
        f"-ccbin={compiler}",
        "-DKD_WITH_CUDA",
        *targets,
    )


def link_arguments(compiler: str, cuda: Cuda | None) -> tuple[str, ...]:
    """Returns the linker's call without objects and output.

    OpenMP is not linked. Its symbols come from the library that torch loads, so that there is one
    pool of threads.
    """
    libraries = Path(torch.__file__).parent / "lib"
    arguments = [compiler, "-shared", f"-L{libraries}", f"-Wl,-rpath,{libraries}"]
    names = ["c10", "torch_cpu", "torch", "torch_python"]
    if cuda is not None:
        folder = "lib64" if (cuda.home / "lib64").exists() else "lib"
        arguments.append(f"-L{cuda.home / folder}")
        names += ["c10_cuda", "torch_cuda", "cudart"]
    return (*arguments, *(f"-l{name}" for name in names))


def job_count() -> int:
    """Returns how many compilers may run at once: `$MAX_JOBS`, else by cores and free memory."""
    if (text := os.environ.get("MAX_JOBS", "")).isdigit() and int(text) > 0:
        return int(text)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, _available_memory() // _MEMORY_PER_JOB))


def _available_memory() -> int:
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        found = None
    return int(found.group(1)) * 1024 if found else 4 * _GIB
