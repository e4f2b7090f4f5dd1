"""Breaks commands in the ways a machine can, and counts how often they kept their promises.

    python -m benchmarks.faults --moments 50 --out faults.json   # the whole: hours
    python -m benchmarks.faults --moments 3 --only kill --commands distill

A promise is kept if the command, started again after the fault, ends well and leaves what an
undisturbed one leaves: every model once, weights and predictions equal bit for bit, no run that
still says RUNNING, no temporary file. A fault that cannot be survived is said in one line, with
exit code 1 or 2. Anything else is printed with what was found.

Every command works on a table of 400 rows. The moments of `kill by time` are spread evenly over the
time of an undisturbed command, those of `kill by event` over the changes that it makes to files and
to its database. In a sweep and a search the killed processes are, by turns, the command with its
workers, the command alone and one worker alone.
"""

import argparse
import importlib
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice
from pathlib import Path

from benchmarks._attempts import Ended, Place, limited

COMMANDS = {
    "distill": "distill --seeds 0",
    "student": "student --seeds 0",
    "sweep": "sweep --workers 2",
    # Students that learn little would have collapsed, and every point would be infeasible.
    "tune": "tune --workers 2 --student.epochs 16 --student.learning_rate 0.01",
    "build": "kernels build",
}
WHOM = ("both", "parent", "worker")
# What a server is away for, and what a command may take to end after a signal.
AWAY_SECONDS = 20.0
# What a command would import; its fork has it then.
IMPORTED_ONCE = (
    "kdplatform.experiments.commands",
    "kdplatform.tuning.command",
    "torch._dynamo",
    "mlflow.pytorch",
    "mlflow.store.tracking.sqlalchemy_store",
    "git",
)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Result:
    """How a fault was borne.

    Attributes:
        broken: what was found where a promise was not kept, one text a time.
    """

    fault: str
    command: str
    tried: int = 0
    broken: list[str] = field(default_factory=list)

    def note(self, when: str, faults: Sequence[str]) -> None:
        """Counts one try."""
        self.tried += 1
        if faults:
            self.broken.append(f"{when}: {'; '.join(faults)}")


class Campaign:
    """The faults, each in a place of its own below one folder."""

    def __init__(self, folder: Path, moments: int) -> None:
        self._folder = folder
        self._moments = moments
        self._places = 0
        self._undisturbed: dict[str, tuple[Ended, Mapping[str, str]]] = {}

    def place(self, **variables: str) -> Place:
        """Returns an empty place."""
        self._places += 1
        return Place(self._folder / f"place-{self._places}", variables)

    def undisturbed(self, command: str) -> tuple[Ended, Mapping[str, str]]:
        """Returns how a command ends to which nothing happens, and the digests of its models."""
        if known := self._undisturbed.get(command):
            return known
        place = self.place(**_variables(command))
        ended = place.run(_words(place, command))
        if ended.code != 0:
            raise SystemExit(f"{command} fails by itself: {ended.err}")
        faults = place.faults({})
        if faults:
            raise SystemExit(f"{command} leaves by itself: {faults}")
        self._undisturbed[command] = ended, place.digests()
        return self._undisturbed[command]

    # ---- killed

    def kill_by_time(self, command: str) -> Result:
        """SIGKILL at moments spread over the command's time."""
        result = Result("killed at a moment", command)
        whole, _ = self.undisturbed(command)
        whom = cycle(WHOM if command in ("sweep", "tune") else ("both",))
        for number in range(1, self._moments + 1):
            after, who = whole.seconds * number / (self._moments + 1), next(whom)
            place = self.place(**_variables(command))
            attempt = place.start(_words(place, command))
            attempt.sleep(after)
            attempt.signal(signal.SIGKILL, who)
            attempt.wait()
            result.note(f"{who} after {after:.2f} s", self._again(place, command))
            shutil.rmtree(place.folder)
        return result

    def kill_by_event(self, command: str) -> Result:
        """SIGKILL at changes that the command itself makes to files and to its database."""
        result = Result("killed at a change of files", command)
        whole, _ = self.undisturbed(command)
        for number in range(1, self._moments + 1):
            event = max(1, whole.events * number // (self._moments + 1))
            place = self.place(**_variables(command))
            place.run(_words(place, command), kill_at_event=event)
            result.note(f"event {event}", self._again(place, command))
            shutil.rmtree(place.folder)
        return result

    def _again(self, place: Place, command: str) -> list[str]:
        """Starts a command again; returns what is not as in an undisturbed one."""
        ended = place.run(_words(place, command))
        if command == "build":
            return [_shown(ended)] if ended.code else _faults_of_library(place)
        _, digests = self.undisturbed(command)
        # A search that was interrupted may go on to other points: its own are compared.
        expected = digests if command != "tune" else {}
        faults = place.faults(expected)
        if ended.code != 0:
            faults.append(_shown(ended))
        if command == "tune":
            faults += _faults_of_trials(place)
        return faults

    # ---- asked to stop

    def signals(self, command: str) -> Result:
        """SIGINT, SIGTERM and SIGHUP: runs are closed, and the command goes on when repeated."""
        result = Result("interrupted by a signal", command)
        whole, _ = self.undisturbed(command)
        for number, which in enumerate(islice(cycle(SIGNALS), self._moments), 1):
            after = whole.seconds * number / (self._moments + 1)
            place = self.place()
            attempt = place.start(_words(place, command))
            attempt.sleep(after)
            attempt.signal(which)
            ended = attempt.wait()
            running = place.rows("SELECT run_uuid FROM runs WHERE status = 'RUNNING'")
            faults = [f"{len(running)} runs RUNNING after the signal"] if running else []
            if ended.code not in (0, 130) or "Traceback" in ended.err:
                faults.append(_shown(ended))
            faults += self._again(place, command)
            result.note(f"{which.name} after {after:.2f} s", faults)
            shutil.rmtree(place.folder)
        return result

    # ---- the store

    def at_once(self, command: str) -> Result:
        """Eight processes begin the same command on an empty store."""
        result = Result("8 processes at once", command)
        place = self.place()
        attempts = [place.start(_words(place, command)) for _ in range(8)]
        failed = [ended for ended in (attempt.wait() for attempt in attempts) if ended.code != 0]
        _, digests = self.undisturbed(command)
        result.note("all", [*map(_shown, failed), *place.faults(digests)])
        return result

    def store_away(self, command: str) -> Result:
        """Artifacts cannot be read for a moment: the command is refused, and nothing is redone."""
        result = Result("artifacts away, then back", command)
        place = self.place()
        place.run(_words(place, command))
        models = place.models()
        away = place.folder / "away"
        os.rename(place.folder / "mlruns", away)
        refused = place.run(_words(place, command))
        faults = []
        if refused.code != 1 or not refused.one_line:
            faults.append(f"while away: {_shown(refused)}")
        # What a command began may be there by now.
        shutil.rmtree(place.folder / "mlruns", ignore_errors=True)
        os.rename(away, place.folder / "mlruns")
        faults += self._again(place, command)
        if place.models() != models:
            faults.append("trained again")
        result.note("once", faults)
        return result

    def server_away(self, command: str) -> Result:
        """An MLflow server does not answer for twenty seconds in the middle of a command."""
        result = Result(f"server away for {AWAY_SECONDS:.0f} s", command)
        place = self.place()
        server, uri = _server(place)
        try:
            remote = Place(place.folder, {"MLFLOW_TRACKING_URI": uri})
            whole, digests = self.undisturbed(command)
            attempt = remote.start(_words(remote, command))
            attempt.sleep(whole.seconds / 2)
            os.killpg(server.pid, signal.SIGSTOP)
            time.sleep(AWAY_SECONDS)
            os.killpg(server.pid, signal.SIGCONT)
            ended = attempt.wait()
            faults = [] if ended.code == 0 else [_shown(ended)]
            result.note("once", faults + remote.faults(digests))
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        return result

    # ---- full, altered, limited

    def disk_full(self, command: str) -> Result:
        """No file may grow beyond a size; with room again the command goes on."""
        result = Result("no room for a file", command)
        for number in range(self._moments):
            # What the command prints goes to files too.
            most = int(2**14 * 1.35**number)
            place = self.place()
            ended = place.run(_words(place, command), prepare=limited(resource.RLIMIT_FSIZE, most))
            faults = [] if ended.one_line else [f"while full: {_shown(ended)}"]
            result.note(f"{most} bytes", faults + self._again(place, command))
            shutil.rmtree(place.folder)
            if ended.code == 0:
                break
        return result

    def altered(self, command: str) -> Result:
        """A file of a finished study has a bit changed, is cut or is emptied."""
        result = Result("a file altered", command)
        template = self.place()
        template.run(_words(template, command))
        files = sorted(
            path
            for folder in (template.home, template.folder / "mlruns")
            for path in folder.rglob("*")
            if path.is_file() and path.suffix in (".pt", ".pt2", ".parquet", ".npz", ".npy")
        )
        draw = random.Random(0)
        for number in range(self._moments):
            original = draw.choice(files)
            content = original.read_bytes()
            how, changed = [
                ("a bit", _with_a_bit_changed(content, draw)),
                ("cut", content[: len(content) // 2]),
                ("emptied", b""),
            ][number % 3]
            original.write_bytes(changed)
            faults = self._again(template, command)
            result.note(f"{how}: {original.name}", faults)
            if original.exists():
                original.write_bytes(content)
        return result

    def limits(self, command: str) -> Result:
        """What a machine can refuse: memory, files, processes, output, a home."""
        result = Result("a limit of the machine", command)
        for name, prepare in _LIMITS.items():
            place = self.place()
            ended = place.run(_words(place, command), prepare=prepare)
            faults = [] if ended.one_line else [f"under the limit: {_shown(ended)}"]
            result.note(name, faults + self._again(place, command))
            shutil.rmtree(place.folder)
        return result

    def libraries(self, command: str) -> Result:
        """A compiled library is cut, emptied or exchanged: it is built again, or never loaded."""
        result = Result("a library altered", command)
        place = self.place(**_variables(command))
        place.run(_words(place, command))
        [library] = place.home.rglob("kdplatform_kernels.so")
        content = library.read_bytes()
        for how, changed in (
            ("cut", content[: len(content) // 2]),
            ("emptied", b""),
            ("a bit", _with_a_bit_changed(content, random.Random(0))),
        ):
            library.write_bytes(changed)
            result.note(how, self._again(place, command))
        return result


def _words(place: Place, command: str) -> list[str]:
    words = COMMANDS[command]
    return words.split() if command == "build" else place.words(words)


def _variables(command: str) -> dict[str, str]:
    return {"KDPLATFORM_KERNELS": "auto"} if command == "build" else {}


def _shown(ended: Ended) -> str:
    if "Traceback" in ended.err:
        return f"exit code {ended.code} with a traceback: {ended.last_line[:200]}"
    return f"exit code {ended.code}: {ended.last_line[:200]}"


def _faults_of_library(place: Place) -> list[str]:
    """Returns why a fresh process does not compute the loss with the library that was built."""
    code = (
        "import torch; from kdplatform.kernels import kd_loss\n"
        "student, teacher = torch.randn(2, 8, 10)\n"
        "labels = torch.zeros(8, dtype=torch.long)\n"
        "output = kd_loss(student, teacher, labels, temperature=4.0, alpha=0.9)\n"
        "assert output.backend.startswith('fused'), output.backend\n"
    )
    environment = {**os.environ, **place.environment(), "KDPLATFORM_KERNELS": "require"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    return [done.stderr.strip()[-300:]] if done.returncode else []


def _faults_of_trials(place: Place) -> list[str]:
    """Returns what is wrong with the trials of a search: their number, their states."""
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(place.folder / "optuna.db")) as database:
        trials = database.execute("SELECT number, state FROM trials").fetchall()
    faults = []
    if len({number for number, _ in trials}) != len(trials):
        faults.append("two trials of one number")
    complete = sum(state == "COMPLETE" for _, state in trials)
    if complete != 6:
        faults.append(f"{complete} completed trials instead of 6")
    if any(state == "RUNNING" for _, state in trials):
        faults.append("a trial left RUNNING")
    return faults


def _with_a_bit_changed(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content)) if content else 0
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] if content else b"\1"


def _close_output() -> None:
    os.close(1)


def _without_home() -> None:
    os.environ.pop("HOME", None)


def _unwritable_home() -> None:
    # Root may write everywhere, but not below a file.
    os.environ["KDPLATFORM_HOME"] = "/dev/null/home"


_LIMITS: dict[str, Callable[[], None]] = {
    "1 GiB of addresses more": lambda: limited(resource.RLIMIT_AS, _addresses() + 2**30)(),
    "64 MiB of addresses more": lambda: limited(resource.RLIMIT_AS, _addresses() + 2**26)(),
    "40 open files": limited(resource.RLIMIT_NOFILE, 40),
    "no further process": limited(resource.RLIMIT_NPROC, 1),
    "closed output": _close_output,
    "no HOME": _without_home,
    "a data folder that cannot be made": _unwritable_home,
}


def _addresses() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _server(place: Place) -> tuple[subprocess.Popen[bytes], str]:
    """Starts an MLflow server on the place's store; returns it when it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = f"sqlite:///{place.database}"
    words = ["-m", "mlflow", "server", "--backend-store-uri", store, "--port", str(port)]
    words += ["--workers", "1", "--artifacts-destination", str(place.folder / "mlruns")]
    with open(place.folder / "server.log", "wb") as log:
        server = subprocess.Popen(
            [sys.executable, *words], stdout=log, stderr=log, start_new_session=True
        )
    uri = f"http://127.0.0.1:{port}"
    patience = time.monotonic() + 120
    while time.monotonic() < patience:
        with suppress(OSError), urllib.request.urlopen(f"{uri}/health", timeout=5):
            return server, uri
        time.sleep(0.2)
    os.killpg(server.pid, signal.SIGKILL)
    raise SystemExit((place.folder / "server.log").read_text())


TRAINING = ("distill", "sweep", "tune")
# `student` does a third of what `distill` does: for a short try.
DEFAULT = (*TRAINING, "build")
# By the word that chooses them: what is done, and to which commands.
FAULTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "kill": (("kill_by_time", "kill_by_event"), (*TRAINING, "student", "build")),
    "signals": (("signals",), (*TRAINING, "student")),
    "store": (("at_once", "store_away", "server_away"), ("distill",)),
    "disk": (("disk_full",), ("distill",)),
    "altered": (("altered",), ("distill",)),
    "limits": (("limits",), ("distill",)),
    "libraries": (("libraries",), ("build",)),
}


def results(campaign: Campaign, only: Sequence[str], commands: Sequence[str]) -> Iterator[Result]:
    """Yields how each fault was borne."""
    for word in only:
        faults, ways = FAULTS[word]
        for command in (name for name in ways if name in commands):
            for fault in faults:
                yield getattr(campaign, fault)(command)


def row(result: Result) -> str:
    """Returns a result as a line of the table."""
    kept = result.tried - len(result.broken)
    return f"| {result.fault} | {result.command} | {result.tried} | {kept} |"


def main() -> int:
    """Runs the campaign; returns 1 where a promise was not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=50, help="of each fault and command")
    parser.add_argument("--only", default=",".join(FAULTS), help="faults, comma-separated")
    parser.add_argument("--commands", default=",".join(DEFAULT), help=f"of {','.join(COMMANDS)}")
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    arguments = parser.parse_args()
    for module in IMPORTED_ONCE:
        importlib.import_module(module)
    found = []
    print("| fault | command | tried | promise kept |\n|---|---|---|---|", flush=True)
    # Not a TemporaryDirectory, which every forked command would remove at its end.
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        campaign = Campaign(folder, arguments.moments)
        only, commands = arguments.only.split(","), arguments.commands.split(",")
        for result in results(campaign, only, commands):
            found.append(result)
            print(row(result), flush=True)
            for text in result.broken:
                print(f"  {result.fault}, {result.command}: {text}", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if arguments.out:
        arguments.out.write_text(json.dumps([asdict(result) for result in found], indent=2))
    return int(any(result.broken for result in found))


if __name__ == "__main__":
    sys.exit(main())
