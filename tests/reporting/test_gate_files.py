"""A judged gate as JUnit XML and JSON."""

import datetime
import json
from pathlib import Path
from xml.etree import ElementTree

from kdplatform.analysis.intervals import Interval
from kdplatform.reporting.gate_files import gate_json, junit_xml, write_gate
from kdplatform.settings.gates import GateFile, Gates, Rule
from kdplatform.study.gates import JudgedGate, JudgedRule, Outcome

NAN = float("nan")


def rule(outcome: Outcome, counts_as: Outcome, arm: str = "DS T=4") -> JudgedRule:
    found = Interval(0.5, NAN, NAN)
    return JudgedRule(arm, f"test/<{outcome}>", "max", 0.1, "estimate", found, outcome, counts_as)


def gate(*rules: JudgedRule) -> JudgedGate:
    gates = Gates(rules={"x": Rule(max=0.1)}, date=datetime.date(2026, 11, 26))
    return JudgedGate(GateFile(Path("dir/gates.yaml"), "ab" * 32, gates), rules, "Teacher")


PASSED, FAILED, CANNOT_TELL = Outcome
GATE = gate(
    rule(PASSED, PASSED),
    rule(FAILED, FAILED),
    rule(CANNOT_TELL, FAILED),
    rule(CANNOT_TELL, PASSED, "DS T=8"),
)


def test_junit_counts_failures_and_what_was_let_through() -> None:
    root = ElementTree.fromstring(junit_xml(GATE))
    assert root.tag == "testsuites"
    assert dict(root.attrib) == {
        "name": "kdplatform gate", "tests": "4", "failures": "2", "errors": "0", "skipped": "1"
    }  # fmt: skip
    first, second = root
    assert [first.get("name"), first.get("failures")] == ["DS T=4", "2"]
    cases = first.findall("testcase")
    assert [len(case) for case in cases] == [0, 1, 1]
    failure = cases[1][0]
    assert failure.tag == "failure"
    assert failure.get("message") == "failed: DS T=4: test/<failed> max 0.1: it is 0.5"
    assert second[0][0].tag == "skipped"


def test_json_holds_the_outcome_the_thresholds_and_every_rule() -> None:
    content = json.loads(gate_json(GATE))
    assert content["outcome"] == "failed"
    assert content["arms"] == {"DS T=4": "failed", "DS T=8": "passed"}
    assert content["thresholds"]["date"] == "2026-11-26"
    assert content["thresholds"]["sha256"] == "ab" * 32
    assert [each["counts_as"] for each in content["rules"]] == [
        *("passed", "failed", "failed", "passed")
    ]
    assert content["rules"][0]["low"] is None


def test_both_are_written(tmp_path: Path) -> None:
    assert [path.name for path in write_gate(GATE, tmp_path)] == ["gate.junit.xml", "gate.json"]
    assert (tmp_path / "gate.junit.xml").read_bytes() == junit_xml(GATE)
