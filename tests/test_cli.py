"""The command line: what it prints, what it refuses, and with which exit code."""

import errno
import os
import pwd
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.refusals import failure

from kdplatform import cli, doctor, errors, interruption
from kdplatform.arguments import ENTRY_POINTS, FROM_PROJECT, refusal
from kdplatform.experiments import commands
from kdplatform.settings.fields import describe_fields
from kdplatform.settings.project import load_project


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDPLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)


def entries(text: str) -> dict[str, str]:
    """Returns what help says of each name, its wrapped lines joined."""
    found: dict[str, str] = {}
    for part in re.split(r"\n  --", text)[1:]:
        words = " ".join(part.split())
        found[words.split()[0]] = words
    return found


def test_a_reader_that_has_enough_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "kdplatform", "tune", "--help"]
    ended = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (cli.BROKEN_PIPE, "")


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_without_a_command_all_are_shown(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {command} " in printed for command in [*ENTRY_POINTS, "doctor"])


@pytest.mark.parametrize("command", ENTRY_POINTS)
def test_help_shows_every_parameter_and_field(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command, "--help"]) == 0
    declared, fields = capsys.readouterr().out.split("\nFields of project trifeature")
    for parameter in ENTRY_POINTS[command]:
        entry = entries(declared)[parameter.name]
        assert parameter.allowed in entry
        assert f"{parameter.name} {parameter.default}" in entry
        assert parameter.description in entry
    shown = entries(fields)
    for field in describe_fields(load_project("trifeature")):
        if refusal(command, field.name) or (command, field.name) == ("tune", "methods"):
            assert field.name not in shown
            continue
        entry = shown[field.name]
        assert f"[{field.allowed}]" in entry
        assert field.description in entry


@pytest.mark.parametrize(
    ("command", "name", "known", "unknown"),
    [
        ("distill", "temperaturs", "'temperature'", "'temperatures'"),
        ("sweep", "temperatur", "'temperatures'", "'temperature'"),
        ("teacher", "studnt.epochs", "'student.epochs'", " temperatures,"),
        ("student", "alfa", "seeds", " alpha"),
    ],
)
def test_a_field_that_the_command_refuses_is_not_suggested(
    command: str, name: str, known: str, unknown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = failure([command, f"--{name}", "2"], capsys)
    assert code == 2
    assert line.startswith(f"parameter='{name}' does not exist; ")
    assert known in line
    assert unknown not in line
    assert "tuning.*" not in line


def test_a_parameter_that_is_a_field_speaks_as_its_field(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["distill", "--help"]) == 0
    declared, fields = capsys.readouterr().out.split("\nFields of project trifeature")
    said = entries(declared)["temperature"].removeprefix(f"temperature {FROM_PROJECT} ")
    field = entries(fields)["distillation.temperature"]
    assert "number >= 0.000001 and <= 1000000" in said
    assert field.endswith(said)


def test_help_shows_the_values_of_the_project_that_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["distill", "--project", "digits", "--student.epochs", "7", "--help"]) == 0
    shown = entries(capsys.readouterr().out.split("\nFields of project digits")[1])
    assert shown["student.epochs"].startswith("student.epochs 7 ")
    assert shown["student.epochs"].endswith("[integer >= 1]")
    assert "dataset.val_fraction" in shown


def test_the_tools_have_help_pages_too(capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["compare", "--help"], ["A B", "--attributes", "--similar_by", "--min_group_size"]),
        (["kernels", "build", "--help"], ["--cuda", "--architectures"]),
        (["doctor", "--help"], ["tracking store"]),
    ):
        assert cli.main(words) == 0
        printed = capsys.readouterr().out
        assert all(text in printed for text in said)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["distil"], "command='distil' does not exist; did you mean 'distill'"),
        (["--project", "digits"], "command='--project' does not exist"),
        (["kernels", "bild"], "kernels='bild' does not exist; did you mean 'build'"),
        (
            ["compare", "a.csv"],
            "compare takes two sides, 1 are given; allowed: two sides, each run ids or ",
        ),
        (["compare", "a.csv", "b.csv", "--colour", "x"], "No such option"),
        (["compare", "a", "b", "--out=x", "--out=y"], "--out is given twice: 'x' and 'y'"),
        (["distill", "--alpha"], "--alpha is given without a value; allowed: --alpha value"),
        (
            ["distill", "--project", "digits", "--min_group_size", "0"],
            "min_group_size='0' is not allowed; allowed: integer >= 1",
        ),
        (["doctor", "now"], "doctor takes no parameters; given: now"),
        (["distill", "digits"], "'digits' is not expected here; allowed: --name value"),
        (["distill", "--project", "trifature"], "project='trifature' does not exist; did you mean"),
        (
            ["distill", "--temperature", "0"],
            "temperature='0' is not allowed; allowed: number >= 0.000001 and <= 1000000",
        ),
        (["distill", "--temperature", "NaN"], "temperature='NaN' is not allowed: not a finite"),
        (["distill", "--alpha", "1.5"], "alpha='1.5' is not allowed; allowed: number >= 0 and <="),
        (["distill", "--seeds", "4-0"], "seeds='4-0' is not allowed: '4-0' runs downwards"),
        (
            ["distill", "--divice", "cpu"],
            "parameter='divice' does not exist; did you mean 'device'",
        ),
        (["distill", "--device", "tpu"], "device='tpu' is not allowed; allowed: auto | cpu | cuda"),
        (["distill", "--device", "meta"], "device='meta' is not allowed; allowed: auto | cpu"),
        (["distill", "--device", "cpu:7"], "device='cpu:7' is not allowed; allowed: auto | cpu"),
        (["distill", "--device", f"cuda:{10**20}"], "device='cuda:1000"),
        (["distill", "--reuse", "maybe"], "reuse='maybe' is not allowed; allowed: true | false"),
        (["teacher", "--teacher.model", "resnet2"], "teacher.model='resnet2' does not exist"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = failure(words, capsys)
    assert code == 2
    assert line.startswith(message)


@pytest.mark.parametrize("parameter", ["project", "config"])
def test_a_file_that_is_no_yaml_is_named_by_the_parameter_it_was_given_as(
    parameter: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "bin.yaml"
    path.write_bytes(b"\0\1\xff")
    code, line = failure(["distill", f"--{parameter}", str(path)], capsys)
    assert code == 2
    assert line.startswith(f"{parameter}={str(path)!r}: not valid YAML: ")


def test_a_device_that_is_not_there_is_refused_before_any_run_is_opened(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, line = failure(["distill", "--project", "digits", "--device", "cuda:99"], capsys)
    assert code == 2
    assert line.startswith("device='cuda:99' is not there; this machine has ")
    assert not (tmp_path / "mlruns").exists()


def test_an_unknown_kernel_mode_is_refused_before_torch_is_loaded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDPLATFORM_KERNELS", "wrong")
    monkeypatch.setitem(sys.modules, "kdplatform.experiments.commands", None)
    code, line = failure(["distill", "--project", "digits"], capsys)
    assert code == 2
    assert line == "KDPLATFORM_KERNELS='wrong' is not allowed; allowed: auto | require | off"


def test_a_data_folder_that_cannot_be_written_is_the_machines_fault(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "data"
    code, line = failure(["distill", "--data_folder", str(folder)], capsys)
    assert code == 1
    assert line.startswith(f"data_folder={str(folder)!r} cannot be written (Not a directory)")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("http://127.0.0.1:9", "Connection refused"),
        ("http://user:secret@127.0.0.1:9", "Connection refused"),
        ("sqlite:////proc/mlflow.db", "No such file or directory"),
        ("sqlite:///not_a_database.db", "file is not a database"),
        ("sqlite:///not%5Fa%5Fdatabase.db", "file is not a database"),
        ("postgresql://user:se/cret@127.0.0.1:9/x", "Connection refused"),
        ("postgresql+psycopg://127.0.0.1:9/x?password=secret", "Connection refused"),
    ],
)
def test_a_tracking_store_that_does_not_answer_is_the_machines_fault(
    uri: str, reason: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("not_a_database.db").write_text("words " * 1000)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    code, line = failure(["distill"], capsys)
    assert code == 1
    assert line.startswith("MLFLOW_TRACKING_URI='")
    assert reason in line
    assert "; allowed: a running MLflow server, or a database" in line
    assert "cret" not in line


@pytest.mark.parametrize("parameter", ["MLFLOW_TRACKING_URI", "storage"])
@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("sqlite://mlflow.db", "is not allowed; allowed: "),
        ("sqlite:/mlflow.db", "is not allowed; allowed: "),
        ("sqlite://", "is not allowed; allowed: "),
        ("postgresql://host:port/x", "is not allowed; allowed: "),
        ("postgresql+pg8000://user:se/cret@host/x", "needs a driver that is not installed; "),
    ],
)
def test_a_uri_that_is_no_stores_is_refused(
    parameter: str,
    uri: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["student", "--project", "digits"]
    if parameter == "storage":
        words = ["tune", "--project", "digits", "--storage", uri]
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    code, line = failure(words, capsys)
    assert code == 2
    assert line.startswith(f"{parameter}='{uri.partition('://')[0]}")
    assert message in line
    assert "cret" not in line


def test_a_file_that_is_no_journal_is_refused_and_stays_as_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("notes.txt").write_text("my notes\n")
    words = ["tune", "--project", "digits", "--storage", "journal:///notes.txt"]
    code, line = failure(words, capsys)
    assert code == 2
    assert line.startswith("storage='journal:///notes.txt' is a file that Optuna did not write, ")
    assert Path("notes.txt").read_text() == "my notes\n"


def test_the_doctor_shows_no_password(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "databricks://me:s3cret@host")
    monkeypatch.setattr(doctor, "_dead_runs", list)
    assert cli.main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "databricks://***@host" in printed
    assert "s3cret" not in printed


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (errors.UserError("alpha=2 is not allowed"), 2, "alpha=2 is not allowed"),
        (errors.MachineError("no\n  room"), 1, "no room"),
        (errors.DivergedError("the loss became nan"), 2, "the loss became nan"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x"),
            1,
            "/data/x cannot be written (No space left on device); allowed: room left in",
        ),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
            1,
            "a file cannot be written (No space left on device); allowed: room left in",
        ),
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on from the last epoch"),
    ],
)
def test_what_ends_a_command_is_one_line(
    error: BaseException,
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(commands, "run_command", fail)
    ended_with, line = failure(["distill"], capsys)
    assert ended_with == code
    assert line.startswith(message)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("a defect at http://me:s3cret@host"), "unforeseen RuntimeError: a defect at"),
        (FileNotFoundError(2, "gone"), "unforeseen FileNotFoundError: [Errno 2] gone"),
        (MemoryError(), "the memory is full (MemoryError); allowed: "),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "the memory is full ("),
        (ImportError("libtorch.so: failed to map segment from"), "the memory is full (libtorch"),
        (RuntimeError("can't start new thread"), "the system allows no more processes and"),
        (BlockingIOError(errno.EAGAIN, "unavailable"), "the system allows no more processes and"),
        (OSError(errno.EMFILE, "Too many open files"), "too many files are open ("),
    ],
)
def test_what_is_not_foreseen_is_one_line_that_names_its_trace(
    error: Exception,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(commands, "run_command", fail)
    code, line = failure(["distill"], capsys)
    assert code == 1
    assert line.startswith(message)
    [trace] = (tmp_path / "home" / "traces").iterdir()
    assert line.endswith(f"; its trace is in {trace}")
    assert "in fail" in trace.read_text()
    assert "s3cret" not in line + trace.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_being_told_to_end_is_an_interruption(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(*arguments: object) -> None:
        os.kill(os.getpid(), number)
        interruption.check()

    monkeypatch.setattr(commands, "run_command", told)
    assert cli.main(["distill"]) == 130


def test_streams_that_the_caller_closed_lead_nowhere() -> None:
    code = (
        "import os, sys\n"
        "from kdplatform.cli import main\n"
        "code = main(['--help'])\n"
        "nowhere = os.stat(os.devnull)\n"
        "opened = all(os.path.samestat(os.fstat(n), nowhere) for n in (0, 1, 2))\n"
        "sys.exit(code if opened else 99)\n"
    )
    closed = ["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code]
    assert subprocess.run(closed).returncode == 0


def test_a_user_without_a_home_folder_is_told_what_to_set(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(user: int) -> None:
        raise KeyError(user)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    code, line = failure(["doctor"], capsys)
    assert code == 2
    assert line.startswith("HOME is not set, and the system knows no home folder of this user; ")
    assert cli.main(["--help"]) == 0


def test_a_configuration_that_cannot_be_read_is_named_as_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("x.yaml").write_bytes(b"\xff\xfe")
    code, line = failure(["distill", "--config", "x.yaml"], capsys)
    assert code == 2
    assert line.startswith("config='x.yaml': not valid YAML: ")


@pytest.mark.parametrize(
    ("command", "name"),
    [("distill", "executor"), ("student", "workers"), ("report", "data_folder"), ("tune", "out")],
)
def test_a_parameter_of_another_command_is_refused(
    command: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = failure([command, "--project", "digits", f"--{name}", "2"], capsys)
    assert code == 2
    assert line.startswith(f"parameter='{name}' does not exist; ")


def test_the_doctor_looks_at_everything(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for name in ("python", "torch", "mlflow", "device", "tracking store", "data folder"):
        assert f"\n{name} " in printed
    assert f"{tmp_path}/home (writable)" in printed
    assert f"sqlite:///{tmp_path}/mlflow.db" in printed
    assert not (tmp_path / "mlflow.db").exists()


def test_the_doctor_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KDPLATFORM_HOME", str(tmp_path / "file" / "x"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert cli.main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "cannot be written (Not a directory)" in printed
    assert "Connection refused" in printed


@pytest.mark.parametrize(
    "words",
    [
        ["distil"],
        ["distill", "--help"],
        ["sweep", "--project", "celeba", "--help"],
        ["distill", "--temperature", "0"],
        ["distill", "--teacher.model", "resnet2"],
        ["distill", "--method", "kdd"],
        ["distill", "--project", "table", "--dataset.file", "absent.csv"],
        ["distill", "--project", "table", "--dataset.file", "loans.csv"],
        ["compare", "--help"],
        ["student", "--attributes", "colour"],
        ["tune", "--attribute", "colour"],
        ["student", "--data_folder", "/dev/null/home"],
    ],
)
def test_words_are_answered_without_torch_and_mlflow(words: list[str], tmp_path: Path) -> None:
    Path("loans.csv").write_text("age,approvedd\n1,yes\n2,no\n")
    code = (
        "import resource, sys\n"
        "from kdplatform.cli import main\n"
        f"code = main({words!r})\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "slow = {'torch', 'mlflow', 'sklearn', 'scipy'} & set(sys.modules)\n"
        "print(code, sorted(slow), used.ru_utime + used.ru_stime < 1.5)\n"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    expected = 0 if "--help" in words else 1 if "--data_folder" in words else 2
    assert result.stdout.splitlines()[-1] == f"{expected} [] True"
    assert "\n" not in result.stderr.strip()


def test_python_m_kdplatform_is_the_same_command_line() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "kdplatform", "distil"], capture_output=True, text=True
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("kdplatform: command='distil' does not exist")


def seconds_to_import(module: str, times: int = 2) -> float:
    """Returns the shortest of several processor times that a fresh interpreter takes."""
    code = (
        "import time\n"
        "start = time.process_time()\n"
        f"import {module}\n"
        "print(time.process_time() - start)\n"
    )
    runs = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(times)
    )
    return min(float(run.stdout) for run in runs)


def test_importing_the_package_takes_no_longer_than_importing_torch() -> None:
    assert seconds_to_import("kdplatform") <= 1.1 * seconds_to_import("torch")
