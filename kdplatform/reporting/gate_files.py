"""A judged gate as files that build systems read: JUnit XML and JSON."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from kdplatform.files import written_atomically
from kdplatform.study.gates import JudgedGate, JudgedRule, Outcome
from kdplatform.text import visible

JUNIT, JSON = "gate.junit.xml", "gate.json"


def gate_files(gate: JudgedGate) -> Mapping[str, bytes]:
    """Returns the content of the files of a gate, by name."""
    return {JUNIT: junit_xml(gate), JSON: gate_json(gate).encode()}


def write_gate(gate: JudgedGate, folder: Path) -> list[Path]:
    """Writes the files of a gate to an existing folder; returns what was written."""
    for name, content in gate_files(gate).items():
        with written_atomically(folder / name) as temporary:
            temporary.write_bytes(content)
            temporary.chmod(0o644)  # others may read it
    return [folder / name for name in (JUNIT, JSON)]


def junit_xml(gate: JudgedGate) -> bytes:
    """Returns a gate as JUnit XML: an arm is a test suite, a rule a test case.

    A rule with the outcome *cannot tell* is a failure if the gate counts it as failed, and skipped
    if it counts as passed. Both are visible.
    """
    root = ElementTree.Element("testsuites", name="kdplatform gate")
    for arm in gate.arms:
        rules = [rule for rule in gate.rules if rule.arm == arm]
        failures = sum(rule.counts_as is Outcome.FAILED for rule in rules)
        skipped = sum(map(_is_skipped, rules))
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=visible(arm),
            tests=str(len(rules)),
            failures=str(failures),
            errors="0",
            skipped=str(skipped),
        )
        for rule in rules:
            case = ElementTree.SubElement(
                suite, "testcase", classname=visible(arm), name=visible(rule.rule)
            )
            words = visible(rule.sentence)
            if rule.counts_as is Outcome.FAILED:
                kind = rule.outcome.replace(" ", "-")
                ElementTree.SubElement(case, "failure", message=words, type=kind).text = words
            elif _is_skipped(rule):
                ElementTree.SubElement(case, "skipped", message=words)
    for name in ("tests", "failures", "errors", "skipped"):
        total = sum(int(suite.attrib[name]) for suite in root)
        root.set(name, str(total))
    ElementTree.indent(root)
    written: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return written


def _is_skipped(rule: JudgedRule) -> bool:
    return rule.outcome is Outcome.CANNOT_TELL and rule.counts_as is Outcome.PASSED


def gate_json(gate: JudgedGate) -> str:
    """Returns a gate as JSON: the outcome, the origin of the thresholds, and every rule."""
    date = gate.file.gates.date
    content = {
        "outcome": gate.outcome.value,
        "sentence": gate.sentence,
        "thresholds": {
            "file": gate.file.path.name,
            "sha256": gate.file.digest,
            "date": None if date is None else date.isoformat(),
            "cannot_tell_counts_as": gate.file.gates.cannot_tell,
            "arms": gate.file.gates.arms,
            "reference": gate.reference,
        },
        "arms": {arm: outcome.value for arm, outcome in gate.arms.items()},
        "rules": [_rule(rule) for rule in gate.rules],
    }
    return json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _rule(rule: JudgedRule) -> dict[str, object]:
    return {
        "arm": rule.arm,
        "metric": rule.metric,
        "bound": rule.bound,
        "limit": rule.limit,
        "by": rule.by,
        **{name: _number(value) for name, value in rule.measured._asdict().items()},
        "outcome": rule.outcome.value,
        "counts_as": rule.counts_as.value,
        "sentence": rule.sentence,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
