"""The sources of a comparison (predictions, weights, thresholds, versions) and its verdict."""

import datetime
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata

from kdplatform.study.gates import JudgedGate
from kdplatform.version import installed_version

# Packages whose versions affect the compared numbers.
_PACKAGES = ("numpy", "scipy", "pandas", "fairlearn")


@dataclass(frozen=True)
class Source:
    """One table of predictions.

    Attributes:
        name: a file as it was given, or a run id, with its condition.
        predictions: SHA-256 of the file.
        weights: SHA-256 of the weights of the run's model; empty for a file.
        run_id: empty for a file.
    """

    name: str
    predictions: str
    weights: str = ""
    run_id: str = ""


@dataclass(frozen=True)
class Provenance:
    """The provenance at the end of a comparison, for a signature.

    Attributes:
        sides: the tables of A and of B.
        examples: the digest of ids and labels, which both sides share.
        verdict: the findings in one line.
        gate: the rules of the gate; None without a gate.
        made: time of the comparison in UTC.
    """

    sides: tuple[Sequence[Source], Sequence[Source]]
    examples: str
    verdict: str
    gate: JudgedGate | None = None
    made: datetime.datetime = field(default_factory=lambda: now())

    def lines(self) -> list[str]:
        """The provenance in words, one fact per line, the verdict first."""
        found = [f"Verdict: {self.verdict}"]
        if self.gate is not None:
            found.append(self.gate.sentence[0].upper() + self.gate.sentence[1:])
            found.append(f"Thresholds: {self.gate.file.path.name}, SHA-256 {self.gate.file.digest}")
        for letter, side in zip("AB", self.sides, strict=True):
            for source in side:
                weights = f"; weights SHA-256 {source.weights}" if source.weights else ""
                kind = "run " if source.run_id else ""
                found.append(
                    f"{letter}: {kind}{source.name}, predictions SHA-256 {source.predictions}"
                    f"{weights}"
                )
        found.append(f"Examples: digest {self.examples}")
        packages = ", ".join(f"{name} {version}" for name, version in versions().items())
        found.append(f"Made {self.made.isoformat()} by {packages}")
        return found

    def content(self) -> dict[str, object]:
        """The provenance as plain values, for a JSON file."""
        date = None if self.gate is None else self.gate.file.gates.date
        thresholds = None
        if self.gate is not None:
            thresholds = {
                "file": self.gate.file.path.name,
                "sha256": self.gate.file.digest,
                "date": None if date is None else date.isoformat(),
                "outcome": self.gate.outcome.value,
            }
        return {
            "verdict": self.verdict,
            "thresholds": thresholds,
            "examples": self.examples,
            "sides": {
                letter: [
                    {
                        "name": source.name,
                        "run_id": source.run_id or None,
                        "predictions_sha256": source.predictions,
                        "weights_sha256": source.weights or None,
                    }
                    for source in side
                ]
                for letter, side in zip("AB", self.sides, strict=True)
            },
            "versions": versions(),
            "made": self.made.isoformat(),
        }


def now() -> datetime.datetime:
    """Returns the time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def versions() -> dict[str, str]:
    """Returns the versions of the platform, of Python and of the numerical packages."""
    found = {"kdplatform": installed_version(), "Python": platform.python_version()}
    return found | {name: metadata.version(name) for name in _PACKAGES}
