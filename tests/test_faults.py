"""A few moments of the campaign of faults; the whole takes hours."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# The campaign, then one command by itself: a process has to load torch and MLflow for both.
CODE = """
import sys
from benchmarks import faults
from benchmarks._attempts import Place
from pathlib import Path

folder = Path(sys.argv.pop())
broken = faults.main()
place = Place(folder / "place")
words = place.words("student", "--seeds", "0")
assert place.run(words).code == 0
digests = place.digests()
assert place.faults(digests) == []
# The campaign itself can fail: a command that trains anew is taken for a lost model.
[folders] = place.models().values()
weights = Path(folders[0]) / "weights.pt"
weights.write_bytes(weights.read_bytes()[:-1])
(place.folder / "tmp" / "left").touch()
print(place.faults({**digests, "another": ""}))
sys.exit(broken)
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("faults")
    words = ["--moments", "1", "--only", "kill,signals", "--commands", "student"]
    words += ["--out", str(folder / "faults.json"), str(folder)]
    command = [sys.executable, "-c", CODE, *words]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return folder, ended


def test_a_command_killed_or_interrupted_anywhere_is_made_good_by_the_next(
    done: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, ended = done
    assert ended.returncode == 0, ended.stderr
    results = json.loads((folder / "faults.json").read_text())
    assert [(result["tried"], result["broken"]) for result in results] == [(1, [])] * 3


def test_a_promise_that_is_not_kept_is_found(
    done: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    assert ast.literal_eval(done[1].stdout.splitlines()[-1]) == [
        "1 models missing",
        "1 models with other numbers",
        "1 files left over, such as left",
    ]
