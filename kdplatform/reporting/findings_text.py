"""Findings as printed text, with which the output of a command begins."""

from collections.abc import Sequence

from kdplatform.study.findings import WARNING, Finding
from kdplatform.text import visible


def findings_text(findings: Sequence[Finding]) -> str:
    """Returns one line per finding, with warnings marked; empty without findings."""
    lines = [
        f"WARNING: {finding.sentence}" if finding.kind == WARNING else f"- {finding.sentence}"
        for finding in findings
    ]
    return "\n".join(map(visible, lines))


def led_by_findings(findings: Sequence[Finding], text: str) -> str:
    """Returns a text with the findings, if there are any, above it."""
    return f"{findings_text(findings)}\n\n{text}" if findings else text
