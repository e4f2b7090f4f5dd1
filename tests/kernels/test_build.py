"""Builds with stand-ins for the compiler: what happens around the compiling."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from kdplatform.kernels import backend, build, toolchain

PROGRAM = """
import sys
from kdplatform.kernels.build import ensure_built
status = ensure_built(print)
print("serving", status.cpu, "because", status.cpu_reason)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A cache of its own, and no settings of the machine's."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("KDPLATFORM", "CXX"))}
    return inherited | {"KDPLATFORM_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}


def compiler(folder: Path, script: str) -> str:
    """A stand-in for the compiler; `$out` is the file it is asked to write."""
    path = folder / "compiler"
    path.write_text(f'#!/bin/sh\nfor out in "$@"; do :; done\n{script}\n')
    path.chmod(0o755)
    return str(path)


def run(environment: dict[str, str], **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment | changes,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def copies_the_library(fused_library: backend.BackendStatus, folder: Path, wait: str = "") -> str:
    """A compiler that takes its time and gives the real library for whatever it is asked."""
    return compiler(folder, f'{wait}\ncp "{fused_library.library}" "$out"')


class TestWithoutACompiler:
    def test_one_warning_says_why_and_the_reference_serves(self, environment, tmp_path):
        result = run(environment, PATH=str(tmp_path))
        assert result.returncode == 0
        assert result.stderr.count("the loss kernels are not used: no C++ compiler on PATH") == 1
        assert "serving reference because no C++ compiler on PATH" in result.stdout

    def test_require_is_an_error(self, environment, tmp_path):
        result = run(environment, PATH=str(tmp_path), KDPLATFORM_KERNELS="require")
        assert result.returncode != 0
        assert "KDPLATFORM_KERNELS=require, but no C++ compiler on PATH" in result.stderr


class TestACompilerThatFails:
    def test_is_asked_once_and_its_log_is_named(self, environment, tmp_path):
        fails = compiler(tmp_path, f'echo x >> "{tmp_path}/calls"; echo "no luck"; exit 1')
        first = run(environment, CXX=fails)
        calls = (tmp_path / "calls").read_text()
        assert "the loss kernels are not used: the compiler failed (log: " in first.stderr
        log = Path(first.stderr.partition("log: ")[2].partition(")")[0])
        assert "no luck" in log.read_text()
        second = run(environment, CXX=fails)
        assert "the compiler failed before" in second.stderr
        assert (tmp_path / "calls").read_text() == calls

    def test_another_compiler_is_tried(self, environment, tmp_path, fused_library):
        run(environment, CXX=compiler(tmp_path, "exit 1"))
        other = tmp_path / "other"
        other.mkdir()
        result = run(environment, CXX=copies_the_library(fused_library, other))
        assert "serving fused" in result.stdout


def test_off_asks_nobody(environment, tmp_path):
    asked = compiler(tmp_path, f'touch "{tmp_path}/asked"')
    result = run(environment, CXX=asked, KDPLATFORM_KERNELS="off")
    assert "serving reference because KDPLATFORM_KERNELS=off" in result.stdout
    assert result.stderr == ""
    assert not (tmp_path / "asked").exists()


def test_an_unknown_mode_is_named(monkeypatch):
    monkeypatch.setenv("KDPLATFORM_KERNELS", "on")
    with pytest.raises(ValueError, match="KDPLATFORM_KERNELS: 'on'; allowed: 'auto'"):
        backend.mode()


def test_a_build_is_whole_or_absent_and_recorded(environment, tmp_path, fused_library):
    result = run(environment, CXX=copies_the_library(fused_library, tmp_path))
    assert "serving fused" in result.stdout
    (library,) = (tmp_path / "home" / "kernels").rglob("*.so")
    record = json.loads((library.parent / "build.json").read_text())
    assert record["key"] == library.parent.name
    assert not list(library.parent.glob("build-*"))


class TestManyProcesses:
    def start(self, environment: dict[str, str], compiler: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=environment | {"CXX": compiler},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def test_a_killed_build_does_not_block_the_next(self, environment, tmp_path, fused_library):
        slow = copies_the_library(
            fused_library,
            tmp_path,
            f'touch "{tmp_path}/started"; test -e "{tmp_path}/go" || sleep 5',
        )
        process = self.start(environment, slow)
        deadline = time.monotonic() + 30
        while not (tmp_path / "started").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        (tmp_path / "go").touch()
        result = run(environment, CXX=slow)
        assert "serving fused" in result.stdout

    def test_two_at_once_build_once(self, environment, tmp_path, fused_library):
        counts = copies_the_library(
            fused_library, tmp_path, f'echo "$out" >> "{tmp_path}/calls"; sleep 0.2'
        )
        processes = [self.start(environment, counts) for _ in range(2)]
        outputs = [process.communicate(timeout=60)[0] for process in processes]
        assert all("serving fused" in output for output in outputs)
        calls = (tmp_path / "calls").read_text().split()
        assert len(calls) == len(set(calls))

    def test_who_waits_too_long_goes_on_with_the_reference(
        self, environment, tmp_path, monkeypatch
    ):
        import filelock

        monkeypatch.setenv("KDPLATFORM_HOME", environment["KDPLATFORM_HOME"])
        library = toolchain.library_path(())
        library.parent.mkdir(parents=True)
        with filelock.FileLock(library.parent / "lock"):
            result = run(environment, KDPLATFORM_KERNELS_TIMEOUT="0.1")
        assert "another process has been building" in result.stderr
        assert "serving reference" in result.stdout

    def test_a_compiler_that_hangs_is_ended(self, environment, tmp_path):
        hangs = compiler(tmp_path, f'echo $$ >> "{tmp_path}/pids"; exec sleep 100')
        result = run(environment, CXX=hangs, KDPLATFORM_KERNELS_TIMEOUT="1.5")
        assert "compiling took more than 2 s" in result.stderr
        for pid in (tmp_path / "pids").read_text().split():
            assert not Path(f"/proc/{pid}/cmdline").exists() or (
                b"sleep" not in Path(f"/proc/{pid}/cmdline").read_bytes()
            )


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

    def test_an_unknown_architecture_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CUDA_HOME", str(self.toolkit(tmp_path / "cuda")))
        with pytest.raises(toolchain.ToolchainError, match=r"CUDA architecture '1\.0' is unknown"):
            toolchain.cuda_toolkit(("1.0",))


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


def test_status_says_what_serves_and_where_it_lies(fused_library):
    assert fused_library.cpu.startswith("fused (")
    assert str(fused_library.library) in fused_library.cpu_reason
    assert fused_library.serving("cpu") == fused_library.cpu
    assert fused_library.serving("meta") == "reference"


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
