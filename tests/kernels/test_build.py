"""What the first call does, and builds with stand-ins for the compiler."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.damage import cut_short, flip_a_bit

from kdplatform.cli import main
from kdplatform.kernels import (
    BackendStatus,
    backend,
    build,
    cache,
    kd_loss,
    status,
    toolchain,
)

PROGRAM = """
import torch
from kdplatform import kd_loss
from kdplatform.kernels import status
print("before:", status().cpu, "because", status().cpu_reason)
logits = torch.zeros(1, 2)
output = kd_loss(logits, logits, temperature=1.0, alpha=1.0)
loss, kl, ce = output
print("serving", output.backend, "because", status().cpu_reason)
"""
Compiler = Callable[[str], str]


@pytest.fixture
def compiler(tmp_path: Path) -> Compiler:
    """Writes a stand-in for the compiler; `$out` is the file it is asked to write."""

    def write(script: str) -> str:
        path = tmp_path / f"compiler{len(list(tmp_path.glob('compiler*')))}"
        path.write_text(f'#!/bin/sh\nfor out in "$@"; do :; done\n{script}\n')
        path.chmod(0o755)
        return str(path)

    return write


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A process that has not looked for a library yet, with a cache of its own and no settings.

    What would be loaded is only noted: this process may have a library already.
    """
    for name in os.environ:
        if name.startswith(("KDPLATFORM", "CXX")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("KDPLATFORM_HOME", str(tmp_path / "home"))
    fresh = backend._Loaded()
    monkeypatch.setattr(backend, "loaded", fresh)
    monkeypatch.setattr("kdplatform.kernels.loss.loaded", fresh)
    monkeypatch.setattr(backend, "load", lambda path: setattr(fresh, "path", path))
    return monkeypatch


def call() -> str:
    """The first call of the loss; returns what served it."""
    logits = torch.zeros(1, 2)
    return kd_loss(logits, logits, temperature=1.0, alpha=1.0).backend


def copies_the_library(fused_library: BackendStatus, before: str = "") -> str:
    """A compiler's script that gives the real library for whatever it is asked."""
    return f'{before}\ncp "{fused_library.library}" "$out"'


class TestWithoutACompiler:
    def test_one_warning_says_why_and_the_reference_serves(self, machine, tmp_path):
        machine.setenv("PATH", str(tmp_path))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert call() == "reference"
            assert call() == "reference"
        (message,) = [str(warning.message) for warning in caught]
        assert "the loss kernels are not used: no C++ compiler on PATH" in message
        assert status().cpu_reason.startswith("no C++ compiler on PATH")

    def test_require_is_an_error_at_every_call(self, machine, tmp_path):
        machine.setenv("PATH", str(tmp_path))
        machine.setenv("KDPLATFORM_KERNELS", "require")
        for _ in range(2):
            with pytest.raises(build.BuildError, match=r"=require, but no C\+\+ compiler on PATH"):
                call()


class TestACompilerThatFails:
    def test_is_asked_once_and_its_log_is_named(self, machine, tmp_path, compiler):
        machine.setenv("CXX", compiler(f'echo x >> "{tmp_path}/calls"; echo "no luck"; exit 1'))
        with pytest.warns(RuntimeWarning, match=r"the compiler failed \(log: ") as caught:
            call()
        calls = (tmp_path / "calls").read_text()
        log = Path(str(caught[0].message).partition("log: ")[2].partition(")")[0])
        assert "no luck" in log.read_text()
        backend.loaded.settled = False  # as in the next process
        with pytest.warns(RuntimeWarning, match="the compiler failed before"):
            call()
        assert (tmp_path / "calls").read_text() == calls

    def test_another_compiler_is_tried(self, machine, compiler):
        machine.setenv("CXX", compiler("exit 1"))
        with pytest.warns(RuntimeWarning, match="the compiler failed"):
            call()
        backend.loaded.settled = False
        machine.setenv("CXX", compiler('touch "$out"'))
        call()
        assert backend.loaded.path == toolchain.library_path(())


def test_off_asks_nobody(machine, tmp_path, compiler):
    machine.setenv("CXX", compiler(f'touch "{tmp_path}/asked"'))
    machine.setenv("KDPLATFORM_KERNELS", "off")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert call() == "reference"
    assert status().cpu_reason == "KDPLATFORM_KERNELS=off"
    assert not (tmp_path / "asked").exists()


def test_an_unknown_mode_is_named_by_whoever_asks(machine):
    machine.setenv("KDPLATFORM_KERNELS", "on")
    for ask in (call, status, build.ensure_built):
        with pytest.raises(ValueError, match="KDPLATFORM_KERNELS='on' is not allowed"):
            ask()


def test_a_build_is_announced_by_one_line_and_is_whole_and_recorded(machine, compiler, capfd):
    machine.setenv("CXX", compiler('touch "$out"'))
    call()
    assert capfd.readouterr().err == "kdplatform: compiling the CPU kernels, once on this machine\n"
    library = backend.loaded.path
    record = json.loads((library.parent / "build.json").read_text())
    assert record["key"] == library.parent.name
    assert not list(library.parent.glob("build-*"))


def given_to_another(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)


class TestALibraryThatOthersCouldHavePut:
    @pytest.fixture
    def library(self, machine, compiler) -> Path:
        machine.setenv("CXX", compiler('echo library > "$out"'))
        return build.build()

    @pytest.mark.parametrize("place", ["kernels", "build", "build.json", "library"])
    @pytest.mark.parametrize("how", ["writable by its group", "writable by all", "another's"])
    def test_is_not_loaded(self, machine, library, place, how):
        folder = library.parent
        path = {"kernels": folder.parent, "build": folder, "library": library}.get(
            place, folder / place
        )
        if how == "another's":
            given_to_another(path, machine)
        else:
            path.chmod(path.stat().st_mode | (0o020 if "group" in how else 0o002))
        with pytest.warns(RuntimeWarning, match=r"not used: .*; allowed: .*; the PyTorch"):
            assert call() == "reference"
        assert backend.loaded.path is None
        with pytest.raises(toolchain.ToolchainError, match="; allowed: "):
            build.build()

    def test_is_not_loaded_where_everybody_may_rename_its_folders(self, machine, library):
        home = library.parents[2]
        home.chmod(0o1777)
        assert status().cpu == "fused"
        home.chmod(0o777)
        assert status().cpu_reason.startswith(f"everybody can write '{home}'")

    def test_is_an_error_where_kernels_are_required(self, machine, library):
        machine.setenv("KDPLATFORM_KERNELS", "require")
        library.chmod(0o777)
        with pytest.raises(build.BuildError, match=r"=require, but others can write "):
            call()

    def test_is_none_that_was_built_under_a_group_writable_umask(self, machine, compiler):
        machine.setenv("CXX", compiler('touch "$out"'))
        before = os.umask(0o002)
        try:
            build.build()
        finally:
            os.umask(before)
        assert status().cpu == "fused"


@pytest.mark.parametrize(
    "damage",
    [
        cut_short,
        flip_a_bit,
        lambda library: library.write_bytes(b""),
        lambda library: library.with_name("build.json").write_text('{"architectures": []}'),
        lambda library: library.with_name("build.json").write_text("[" * 100_000),
        lambda library: library.with_name("build.json").unlink(),
    ],
    ids=["cut short", "altered", "empty", "no digest", "no record", "nothing beside it"],
)
def test_a_library_that_is_not_whole_is_built_again(machine, compiler, capsys, damage):
    machine.setenv("CXX", compiler('echo library > "$out"'))
    library = build.build()
    damage(library)
    assert status().cpu_reason == "not built yet; the first call builds it"
    call()
    said, announced = capsys.readouterr().err.splitlines()
    assert said == f"{library} is damaged or altered; it is compiled again"
    assert "compiling" in announced
    assert backend.loaded.path == library
    assert library.read_text() == "library\n"
    assert backend.find_library() == library


class TestStatus:
    def test_changes_nothing(self, machine, tmp_path, compiler):
        machine.setenv("CXX", compiler('touch "$out"'))
        assert status().cpu == "reference"
        assert status().cpu_reason == "not built yet; the first call builds it"
        assert not (tmp_path / "home").exists()
        library = build.build()
        assert status().cpu == "fused"
        assert status().cpu_reason == f"built at {library}; the first call loads it"
        assert backend.loaded == backend._Loaded()

    def test_says_what_serves_and_where_it_lies(self, fused_library):
        assert fused_library.cpu.startswith("fused (")
        assert str(fused_library.library) in fused_library.cpu_reason
        assert fused_library.serving("cpu") == fused_library.cpu
        assert fused_library.serving("meta") == "reference"


class TestTheOutput:
    @pytest.mark.parametrize("options", [{"temperature": 2.0}, {"temperature": torch.ones(1)}])
    def test_says_what_served_it(self, fused_library, options):
        logits = torch.zeros(1, 2)
        assert kd_loss(logits, logits, alpha=1.0, **options).backend == fused_library.cpu
        assert kd_loss(logits.double(), logits, alpha=1.0, **options).backend == "fused (plain)"
        meta = logits.to("meta")
        assert kd_loss(meta, meta, temperature=2.0, alpha=1.0).backend == "reference"


class TestManyProcesses:
    def start(
        self, tmp_path: Path, compiler: str, program: str = PROGRAM
    ) -> "subprocess.Popen[str]":
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("KDPLATFORM")}
        changes = {"KDPLATFORM_HOME": str(tmp_path / "home"), "CXX": compiler}
        return subprocess.Popen(
            [sys.executable, "-c", program],
            env=inherited | changes | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def test_a_killed_build_does_not_block_the_next(self, tmp_path, compiler, fused_library):
        slow = compiler(
            copies_the_library(
                fused_library, f'touch "{tmp_path}/started"; test -e "{tmp_path}/go" || sleep 5'
            )
        )
        process = self.start(tmp_path, slow)
        deadline = time.monotonic() + 60
        while not (tmp_path / "started").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        (tmp_path / "go").touch()
        output, error = self.start(tmp_path, slow).communicate(timeout=90)
        assert "before: reference because not built yet" in output
        assert "serving fused (" in output
        assert error.count("\n") == 1

    def test_two_at_once_build_once(self, tmp_path, compiler, fused_library):
        counts = compiler(
            copies_the_library(fused_library, f'echo "$out" >> "{tmp_path}/calls"; sleep 0.2')
        )
        processes = [self.start(tmp_path, counts) for _ in range(2)]
        outputs = [process.communicate(timeout=90)[0] for process in processes]
        assert all("serving fused" in output for output in outputs)
        calls = (tmp_path / "calls").read_text().split()
        assert len(calls) == len(set(calls))

    def test_who_waits_too_long_goes_on_with_the_reference(self, machine):
        import filelock

        machine.setenv("KDPLATFORM_KERNELS_TIMEOUT", "0.1")
        library = toolchain.library_path(())
        library.parent.mkdir(parents=True)
        with (
            filelock.FileLock(library.parent / "lock", is_singleton=False),
            pytest.warns(RuntimeWarning, match="another process has been building"),
        ):
            assert call() == "reference"

    def test_a_compiler_that_hangs_is_ended(self, machine, tmp_path, compiler):
        machine.setenv("CXX", compiler(f'echo $$ >> "{tmp_path}/pids"; exec sleep 100'))
        machine.setenv("KDPLATFORM_KERNELS_TIMEOUT", "1.5")
        with pytest.warns(RuntimeWarning, match="compiling took more than 2 s"):
            call()
        for pid in (tmp_path / "pids").read_text().split():
            assert not Path(f"/proc/{pid}/cmdline").exists() or (
                b"sleep" not in Path(f"/proc/{pid}/cmdline").read_bytes()
            )


def test_threads_that_call_first_at_once_build_once(machine, tmp_path, compiler):
    from concurrent.futures import ThreadPoolExecutor

    machine.setenv("CXX", compiler(f'echo "$out" >> "{tmp_path}/calls"; sleep 0.1; touch "$out"'))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: call(), range(4)))
    calls = (tmp_path / "calls").read_text().split()
    assert len(calls) == len(set(calls))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_call_may_be_the_first(machine, compiler, backend):
    machine.setenv("CXX", compiler('touch "$out"'))
    torch.compiler.reset()

    @torch.compile(fullgraph=True, backend=backend)
    def step(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return kd_loss(student, teacher, temperature=4.0, alpha=1.0).loss

    student, teacher = torch.randn(2, 3, 4)
    expected = step(student, teacher)
    torch.compiler.reset()
    assert toolchain.library_path(()).exists()
    torch.testing.assert_close(expected, kd_loss(student, teacher, temperature=4.0, alpha=1.0).loss)


class TestCuda:
    def toolkit(self, root: Path, headers: bool = True) -> Path:
        (root / "bin").mkdir(parents=True)
        nvcc = root / "bin" / "nvcc"
        nvcc.write_text("#!/bin/sh\necho compute_80; echo compute_90; echo compute_100\n")
        nvcc.chmod(0o755)
        if headers:
            (root / "include").mkdir()
            (root / "include" / "cuda_runtime.h").touch()
        return root

    def test_a_home_without_headers_is_passed_over(self, tmp_path, monkeypatch):
        wrapper = self.toolkit(tmp_path / "wrapper", headers=False)
        real = self.toolkit(tmp_path / "real")
        monkeypatch.setenv("CUDA_HOME", str(wrapper))
        monkeypatch.setenv("CUDA_PATH", str(real))
        assert toolchain.cuda_home() == real

    def test_architectures_are_those_the_toolkit_knows(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CUDA_HOME", str(self.toolkit(tmp_path / "cuda")))
        monkeypatch.delenv("KDPLATFORM_CUDA_ARCHITECTURES", raising=False)
        assert toolchain.cuda_toolkit().architectures == ("8.0", "9.0", "10.0")
        monkeypatch.setenv("KDPLATFORM_CUDA_ARCHITECTURES", "9.0")
        cuda = toolchain.cuda_toolkit()
        assert cuda.architectures == ("9.0",)
        flags = toolchain._nvcc_flags("c++", cuda)
        assert "-gencode=arch=compute_90,code=sm_90" in flags
        assert "-gencode=arch=compute_90,code=compute_90" in flags

    def test_architectures_are_in_rising_order(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CUDA_HOME", str(self.toolkit(tmp_path / "cuda")))
        cuda = toolchain.cuda_toolkit(("10.0", "8.0", "9.0", "8.0"))
        assert cuda.architectures == ("8.0", "9.0", "10.0")
        assert "-gencode=arch=compute_100,code=compute_100" in toolchain._nvcc_flags("c++", cuda)

    def test_an_unknown_architecture_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CUDA_HOME", str(self.toolkit(tmp_path / "cuda")))
        with pytest.raises(toolchain.ToolchainError, match=r"CUDA architecture '1\.0' is unknown"):
            toolchain.cuda_toolkit(("1.0",))


@pytest.mark.parametrize(
    ("built", "devices", "runs"),
    [
        ("8.0 9.0", "9.0", True),
        ("8.0 9.0", "8.0 9.0", True),
        ("8.0", "8.6", True),  # binary code of the same major version
        ("8.6 9.0", "8.0", False),  # of a higher minor version
        ("8.0", "9.0", True),  # PTX, for later devices
        ("8.0 9.0", "12.0", True),
        ("9.0", "10.0", True),
        ("9.0", "8.9", False),
        ("8.0 10.0", "9.0", False),  # PTX is of the newest alone
        ("9.0", "8.0 9.0", False),
        ("9.0", "", True),
    ],
)
def test_a_library_runs_on_devices_by_its_binary_code_or_its_ptx(built, devices, runs):
    assert toolchain.covers(built.split(), devices.split()) is runs


class TestALibraryForMoreArchitectures:
    """On a machine without nvcc and without a compiler, such as a container that only runs."""

    @pytest.fixture
    def put(self, machine, tmp_path) -> Callable[..., Path]:
        machine.setenv("PATH", str(tmp_path / "nothing"))
        for name in ("CUDA_HOME", "CUDA_PATH"):
            machine.delenv(name, raising=False)
        machine.setattr(toolchain, "_cuda_candidates", lambda: iter(()))

        def library(*architectures: str, **record: object) -> Path:
            path = toolchain.library_path(architectures)
            path.parent.mkdir(parents=True)
            made = tmp_path / "made.so"
            made.write_text(" ".join(architectures))
            cache.put(path, made, {"architectures": list(architectures), **record})
            return path

        return library

    def devices(self, machine: pytest.MonkeyPatch, *architectures: str) -> None:
        machine.setattr(backend, "device_architectures", lambda: architectures)

    def test_is_found_without_a_toolkit(self, machine, put):
        put()
        library = put("8.0", "9.0")
        self.devices(machine, "9.0")
        assert backend.find_library() == library
        call()
        assert backend.loaded.path == library

    def test_the_exact_one_comes_first_and_then_that_of_the_fewest(self, machine, put):
        self.devices(machine, "9.0")
        most, fewer = put("8.0", "8.6", "9.0"), put("8.0", "9.0")
        assert backend.find_library() == fewer
        exact = put("9.0")
        assert backend.find_library() == exact
        self.devices(machine, "8.6")
        assert backend.find_library() == fewer
        for library in (exact, fewer):
            library.unlink()
        assert backend.find_library() == most

    def test_is_not_used_on_other_devices_or_of_other_sources(self, machine, put):
        cpu, library = put(), put("9.0")
        self.devices(machine, "8.0")
        assert backend.find_library() == cpu
        library.parent.rename(library.parent.with_name("cuda-torch1.0-0123456789abcdef"))
        self.devices(machine, "9.0")
        assert backend.find_library() == cpu

    @pytest.mark.parametrize("named", [None, "9.0", [9.0], ["nine"], ["9.0", "x"], []])
    def test_a_record_without_architectures_is_passed_over(self, machine, put, named):
        cpu = put()
        put("8.0", "9.0", architectures=named)
        self.devices(machine, "9.0")
        assert backend.find_library() == cpu

    def test_is_not_used_if_altered_or_if_others_could_have_put_it(self, machine, put):
        cpu, library = put(), put("8.0", "9.0")
        self.devices(machine, "9.0")
        library.write_text("altered")
        assert backend.find_library() == cpu
        library.chmod(0o777)
        with pytest.raises(toolchain.ToolchainError, match="others can write"):
            backend.find_library()

    @pytest.mark.parametrize("with_cpu", [True, False])
    def test_without_a_device_it_is_said_to_be_there(self, machine, put, capsys, with_cpu):
        if with_cpu:
            put()
        library = put("8.0", "9.0")
        self.devices(machine)
        assert main(["kernels", "status"]) == 0
        cuda = next(line for line in capsys.readouterr().out.splitlines() if "cuda  " in line)
        assert "no CUDA device; " in cuda
        assert f"for CUDA 8.0, 9.0 at {library}" in cuda
        assert "kernels build" not in cuda

    def test_the_command_that_would_help_is_named_for_other_devices(self, machine, put):
        put()
        library = put("9.0")
        self.devices(machine, "8.0")
        assert status().cuda_reason == (
            "built without CUDA 8.0 (kdplatform kernels build --cuda --architectures 8.0); "
            f"there is a library for CUDA 9.0 at {library}"
        )


def test_jobs_follow_memory_and_max_jobs(monkeypatch):
    monkeypatch.delenv("MAX_JOBS", raising=False)
    monkeypatch.setattr(toolchain, "_available_memory", lambda: 1 << 30)
    assert toolchain.job_count() == 1
    monkeypatch.setenv("MAX_JOBS", "7")
    assert toolchain.job_count() == 7


def test_a_key_changes_with_the_sources_and_the_architectures(tmp_path, monkeypatch):
    sources = tmp_path / "csrc"
    (sources / "cuda").mkdir(parents=True)
    (sources / "binding.cpp").write_text("1")
    monkeypatch.setattr(toolchain, "SOURCES", sources)
    before = toolchain.build_key(())
    (sources / "cuda" / "rows.cu").write_text("1")
    assert toolchain.build_key(()) == before
    assert toolchain.build_key(("9.0",)) != toolchain.build_key(("8.0",))
    (sources / "binding.cpp").write_text("2")
    assert toolchain.build_key(()) != before


def test_no_sources_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(toolchain, "SOURCES", tmp_path)
    with pytest.raises(toolchain.ToolchainError, match="no sources at"):
        build.build()


def test_what_the_build_needs_is_a_dependency():
    project = Path(toolchain.__file__).parents[2]
    declared = tomllib.loads((project / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {requirement.partition(">")[0] for requirement in declared}
    assert {"ninja", "pybind11", "filelock"} <= names


@pytest.mark.parametrize("name", ["KDPLATFORM_HOME", "XDG_CACHE_HOME"])
def test_a_home_of_an_unknown_user_is_said_in_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KDPLATFORM_HOME", raising=False)
    monkeypatch.setenv(name, "~nosuchuser/x")
    with pytest.raises(toolchain.ToolchainError, match=r"'~nosuchuser/x' has no home folder$"):
        toolchain.cache_folder()
