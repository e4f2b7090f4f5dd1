"""The chapters that a study and a comparison share: what was found, examples, how it was made."""

from collections.abc import Sequence

from kdplatform.reporting.gallery import Gallery
from kdplatform.reporting.page import Section
from kdplatform.study.findings import Finding


def findings_chapter(findings: Sequence[Finding], warnings: Sequence[str] = ()) -> Section:
    """What was found, in the order of the findings."""
    lead = []
    if not findings:
        lead = ["Nothing is compared: there is no reference, no attribute and no tested class."]
    return Section("What was found", lead, warnings, findings=findings)


def examples_chapter(galleries: Sequence[tuple[str, Gallery]]) -> Section:
    """Examples that only one side gets right, of every comparison by its title."""
    title = "Examples that changed"
    if not galleries:
        return Section(title, ["Nothing is compared, so no example changed."])
    parts = []
    for name, gallery in galleries:
        counts = [f"{gallery.counts[way]} examples where {way}" for way in gallery.directions]
        parts.append(Section(name, [f"{' and '.join(counts)}."], gallery=gallery))
    return Section(title, parts=parts, switch="Compare")


def methods_and_caveats(
    facts: Sequence[str], caveats: Sequence[str], beside: Sequence[str]
) -> Section:
    """How the numbers were made and their limits; folded.

    Args:
        facts: settings and runs.
        caveats: what limits the conclusions.
        beside: which files are beside the page.
    """
    parts = [
        Section("Settings and runs", points=facts),
        Section("Caveats", points=caveats),
        Section("Beside this page", points=beside),
    ]
    return Section(
        "Methods and caveats", parts=[part for part in parts if part.points], folded=True
    )
