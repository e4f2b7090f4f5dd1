"""Text for technical documentation by Annex IV of Regulation (EU) 2024/1689, sections 2 and 4.

Facts that the platform measured or recorded are filled in. The rest names who has to write it.
"""

from kdplatform.reporting.cards.facts import CardFacts, known
from kdplatform.reporting.cards.markdown import (
    FACT_HEADER,
    GROUP_HEADER,
    escaped,
    fact_rows,
    group_rows,
    points,
    table,
)

_PROVIDER = "Not recorded by the platform: to be written by the provider."


def annex_iv(facts: CardFacts) -> str:
    """Returns the text as Markdown."""
    lines = [
        f"# Technical documentation, Annex IV sections 2 and 4: {escaped(facts.name)}",
        "",
        "This is a draft. It contains what was measured and recorded; it is no declaration of "
        "conformity.",
        "",
        "## 2(a) Methods and steps of development, pre-trained systems",
        "",
        f"{escaped(facts.role)}. {_origin(facts)}",
        "",
        *points((f"{name}: {value}" for name, value in facts.settings.items()), _PROVIDER),
        "## 2(b) Design specifications, choices and assumptions, what is optimised for",
        "",
        _PROVIDER,
        "",
        "## 2(c) System architecture and computational resources",
        "",
        _PROVIDER,
        "",
        "## 2(d) Data: provenance, scope, characteristics, selection, labelling, cleaning",
        "",
        f"Data: {escaped(facts.dataset)}; classes: {escaped(', '.join(facts.classes))}. "
        "Provenance, labelling and cleaning: to be written by the provider.",
        "",
        "## 2(e) Human oversight",
        "",
        _PROVIDER,
        "",
        "## 2(f) Pre-determined changes",
        "",
        _PROVIDER,
        "",
        "## 2(g) Validation and testing",
        "",
        f"Test data: {facts.examples} examples of {escaped(facts.dataset)}, digest of ids and "
        f"labels {facts.digest}. Models: {facts.seeds}, one per seed. Reference: "
        f"{escaped(facts.reference)}. Fractions, not per cent.",
        "",
        "### Accuracy",
        "",
        *table(FACT_HEADER, fact_rows(f for f in facts.facts if not f.attribute)),
        "### Robustness",
        "",
        "Not measured.",
        "",
        "### Potentially discriminatory impacts",
        "",
        *_impacts(facts),
        "### What was found",
        "",
        *points(facts.findings, "No difference is shown."),
        "### Test logs and reports, dated and signed",
        "",
        *points(_records(facts), "Not recorded."),
        "Responsible person, date, signature: ____________________",
        "",
        "## 2(h) Cybersecurity",
        "",
        _PROVIDER,
        "",
        "## 4 Appropriateness of the performance metrics",
        "",
        *points(_metrics_used(facts), "No metric was measured."),
        "Why these metrics suit the intended purpose: to be written by the provider.",
    ]
    return "\n".join(lines) + "\n"


def _impacts(facts: CardFacts) -> list[str]:
    of_attributes = [fact for fact in facts.facts if fact.attribute]
    if facts.groups.empty and not of_attributes:
        return ["Not measured: no attribute was given.", ""]
    lines = table(FACT_HEADER, fact_rows(of_attributes)) if of_attributes else []
    rows = facts.groups.to_dict("records")
    small = [row for row in rows if not known(row["value_b"])]
    shown = [row for row in rows if row["kind"] != "group within class" and row not in small]
    lines += table(GROUP_HEADER, group_rows({str(k): v for k, v in r.items()} for r in shown))
    if small:
        lines += [f"{len(small)} groups are too small to be measured.", ""]
    return lines


def _records(facts: CardFacts) -> list[str]:
    return [] if facts.provenance is None else facts.provenance.lines()


def _metrics_used(facts: CardFacts) -> list[str]:
    found = []
    names = [fact.metric for fact in facts.facts]
    if any(name.startswith("test/") for name in names):
        found.append(
            "Accuracy and worst-class accuracy: the share of right predictions among all examples, "
            "and in the class with the lowest share."
        )
    if any(fact.attribute for fact in facts.facts):
        found.append(
            "Demographic parity difference (DPD) and equalized odds difference (EOD): the largest "
            "difference between groups of the rates at which a class is predicted, and of the true "
            "and false positive rates. Both are biased upward near parity. Groups below the "
            "smallest size are left out."
        )
    if any(name.startswith("classwise/") for name in names):
        found.append(
            "Classes that differ significantly from the reference, also after Holm's correction."
        )
    if any("individual" in name for name in names):
        found.append("Individual unfairness: how differently similar examples are treated.")
    return found


def _origin(facts: CardFacts) -> str:
    if facts.base_model:
        return f"Distilled from {escaped(facts.base_model)}."
    return f"Compared with {escaped(facts.reference)}; whether it was made from it is not recorded."
