"""Findings as they are printed: what everything that a command prints begins with."""

from collections.abc import Sequence

from kdplatform.study.findings import WARNING, Finding
from kdplatform.text import visible


def findings_text(findings: Sequence[Finding]) -> str:
    """Returns one line per finding, warnings so that they cannot be missed; empty without any."""
    lines = [
        f"WARNING: {finding.sentence}" if finding.kind == WARNING else f"- {finding.sentence}"
        for finding in findings
    ]
    return "\n".join(map(visible, lines))


def led_by_findings(findings: Sequence[Finding], text: str) -> str:
    """Returns a text with the findings, if there are any, above it."""
    return f"{findings_text(findings)}\n\n{text}" if findings else text
