"""A few moments of the campaign of faults; the whole takes hours."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_a_command_killed_or_interrupted_anywhere_is_made_good_by_the_next(tmp_path: Path) -> None:
    out = tmp_path / "faults.json"
    words = ["--moments", "1", "--only", "kill,signals", "--commands", "student", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(out.read_text())
    assert [(result["tried"], result["broken"]) for result in results] == [(1, [])] * 3


def test_a_promise_that_is_not_kept_is_found(tmp_path: Path) -> None:
    """The campaign itself can fail: a command that trains anew is taken for a lost model."""
    code = (
        "from benchmarks._attempts import Place\nfrom pathlib import Path\n"
        f"place = Place(Path({str(tmp_path)!r}))\n"
        "words = place.words('student', '--seeds', '0')\n"
        "assert place.run(words).code == 0\n"
        "digests = place.digests()\n"
        "assert place.faults(digests) == []\n"
        "[folders] = place.models().values()\n"
        "weights = Path(folders[0]) / 'weights.pt'\n"
        "weights.write_bytes(weights.read_bytes()[:-1])\n"
        "(place.folder / 'tmp' / 'left').touch()\n"
        "print(place.faults({**digests, 'another': ''}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == (
        "['1 models missing', '1 models with other numbers', '1 files left over, such as left']"
    )
