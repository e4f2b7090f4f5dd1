"""The end of a comparison: judging, printing, writing, and logging as a run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdplatform.experiments.gates import enforce
from kdplatform.experiments.run_names import named_run
from kdplatform.files import (
    file_digest,
    scratch_folder,
    user_path,
    writable_folder,
    written_atomically,
)
from kdplatform.progress import show
from kdplatform.reporting.cards.sources import card_of_sides
from kdplatform.reporting.cards.write import FOLDER as CARDS
from kdplatform.reporting.cards.write import write_cards
from kdplatform.reporting.comparison import (
    Comparison,
    comparison_text,
    verdict_line,
    with_provenance,
)
from kdplatform.reporting.comparison_rows import A, B
from kdplatform.reporting.gate_files import write_gate
from kdplatform.reporting.report import write_report
from kdplatform.settings.gates import GateFile
from kdplatform.study.classes import ClassWise
from kdplatform.study.gates import comparison_metrics, judge_gate
from kdplatform.study.provenance import Provenance, Source

PAGE, PROVENANCE = "comparison.html", "provenance.json"
_SIDES = {A: "side A", B: "side B"}


@dataclass(frozen=True)
class Ending:
    """The requested outputs of a comparison.

    Attributes:
        folder: folder for the page and its tables; None: they are not written.
        formats: further formats of the page.
        gate: rules that side B must keep.
        with_card: whether cards are written beside the page.
        is_logged: whether the comparison is logged as a run.
        settings: parameters as they were given, for the run.
    """

    folder: Path | None
    formats: Sequence[str]
    gate: GateFile | None
    with_card: bool
    is_logged: bool
    settings: Mapping[str, str]


def conclude(comparison: Comparison, sides: Sequence[Sequence[str]], ending: Ending) -> None:
    """Judges the gate of a comparison, then prints, writes and logs the results.

    Args:
        sides: the runs or files of A and of B, as they were given.

    Raises:
        GateFailedError: a rule of the gate is broken.
    """
    study = comparison.study
    gate = None
    if ending.gate is not None:
        rules = comparison_metrics(study.attributes)
        gate = judge_gate(ending.gate, study, ClassWise(study), rules, A, _SIDES)
    provenance = Provenance(
        (list(map(_source, sides[0])), list(map(_source, sides[1]))),
        study.any_table.digest,
        verdict_line(comparison),
        gate,
    )
    comparison = with_provenance(comparison, provenance.lines())
    text = comparison_text(comparison)
    show(text)
    cards = None
    if ending.with_card:
        cards = card_of_sides(study, A, B, provenance, comparison.notes)
    files = _write(comparison, provenance, ending.folder, ending.formats) if ending.folder else []
    if cards is not None and ending.folder is not None:
        write_cards(cards, ending.folder / CARDS)
    if ending.is_logged:
        # MLflow takes seconds to load; files alone need none of it.
        from kdplatform.experiments.comparison_run import (
            comparison_run,
            log_cards,
            log_comparison,
        )

        titles = " against ".join(study.settings[letter] for letter in "BA")
        with comparison_run(sides, titles) as run_id, scratch_folder() as scratch:
            pages = files or _write(comparison, provenance, scratch, ending.formats)
            log_comparison(comparison, provenance, text, ending.settings, pages, gate)
            if cards is not None:
                log_cards(cards)
            show(f"run {run_id}")
    if ending.folder is not None:
        show(f"read it: {ending.folder / PAGE}")
    enforce(gate)


def _write(
    comparison: Comparison, provenance: Provenance, folder: Path, formats: Sequence[str]
) -> list[Path]:
    """Writes the page, its tables, its provenance and its gate's outcome."""
    files = write_report(comparison.report, writable_folder("out", folder), PAGE, formats)
    content = json.dumps(provenance.content(), indent=2, ensure_ascii=False)
    files.append(folder / PROVENANCE)
    with written_atomically(files[-1]) as temporary:
        temporary.write_text(f"{content}\n", encoding="utf-8")
        temporary.chmod(0o644)  # others may read it
    return files + (write_gate(provenance.gate, folder) if provenance.gate else [])


def _source(name: str) -> Source:
    if (run := named_run(name)) is None:
        return Source(name, file_digest(user_path("side", name)))
    from kdplatform.experiments.comparison_run import source_of_run

    return source_of_run(run.run_id, run.condition)
