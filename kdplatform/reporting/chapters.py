"""The chapters that a study and a comparison share: what was found, examples, how it was made."""

from collections.abc import Sequence

from kdplatform.reporting.gallery import Gallery
from kdplatform.reporting.page import Found, Section

NO_EXAMPLES = (
    "No example can be shown: the runs logged none. Runs log the examples that changed from this "
    "version on; older ones have to be trained again with reuse=false."
)


def findings_chapter(findings: Sequence[Found], warnings: Sequence[str] = ()) -> Section:
    """What was found, in the order of the findings."""
    lead = []
    if not findings:
        lead = ["Nothing is compared: there is no reference, no attribute and no tested class."]
    return Section("What was found", lead, warnings, findings=findings)


def examples_chapter(gallery: Gallery | None) -> Section:
    """Examples whose prediction changed."""
    title = "Examples that changed"
    if gallery is None:
        return Section(title, [NO_EXAMPLES])
    counted = [f"{gallery.counts[way]} {way}" for way in gallery.directions if way in gallery.counts]
    lead = [f"In all: {'; '.join(counted)}."] if counted else []
    return Section(title, lead, gallery=gallery)


def methods_and_caveats(
    facts: Sequence[str], caveats: Sequence[str], beside: Sequence[str]
) -> Section:
    """How the numbers were made and what they do not say; folded.

    Args:
        facts: settings and runs.
        caveats: what limits the conclusions.
        beside: which files stand beside the page.
    """
    parts = [
        Section("Settings and runs", points=facts),
        Section("Caveats", points=caveats),
        Section("Beside this page", points=beside),
    ]
    return Section(
        "Methods and caveats", parts=[part for part in parts if part.points], folded=True
    )
