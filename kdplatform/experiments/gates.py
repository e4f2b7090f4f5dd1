"""Gates in commands: read before anything is trained, and enforced at the end."""

from collections.abc import Iterable
from pathlib import Path

from kdplatform.analysis.tables import Attribute
from kdplatform.errors import GateFailedError
from kdplatform.files import place_of_folder, writable_folder
from kdplatform.progress import say
from kdplatform.roles import Role
from kdplatform.settings.gates import GateFile, read_gate
from kdplatform.study.gate_metrics import check_names, gate_metrics
from kdplatform.study.gates import JudgedGate, Outcome, checked_rules
from kdplatform.study.metrics import REFERENCES


def checked_gate(
    given: str,
    attributes: Iterable[Attribute],
    roles: Iterable[Role] = tuple(REFERENCES),
    out: Path | None = None,
) -> GateFile | None:
    """Reads a gate, and checks its rules and its folder before anything is measured.

    Args:
        roles: the references of the models.

    Raises:
        UserError: the file, or one of its rules, is invalid.
        MachineError: the folder cannot be written.
    """
    file = read_gate(given)
    if file is None:
        return None
    attributes = list(attributes)
    check_names(attributes)
    checked_rules(file, gate_metrics(attributes, roles))
    if out is not None:
        writable_folder("gate_out", place_of_folder("gate_out", out))
    return file


def enforce(gate: JudgedGate | None) -> None:
    """Prints a gate's outcome, with a line per rule that is broken or *cannot tell*.

    Raises:
        GateFailedError: the gate failed.
    """
    if gate is None:
        return
    first, *lines = gate.lines()
    for line in lines:
        say(line)
    if gate.outcome is Outcome.FAILED:
        raise GateFailedError(first)
    say(first)
