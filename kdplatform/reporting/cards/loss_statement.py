"""A Distillation Loss Statement: what was preserved, what was lost, why that is acceptable.

The statement and the kinds of losses are those of Wang, "Knowledge Distillation Must Account for
What It Loses" (arXiv:2604.25110). All numbers were measured. The rest states that it was not
measured.
"""

from kdplatform.reporting.cards.facts import CardFacts, Fact
from kdplatform.reporting.cards.markdown import (
    FACT_HEADER,
    GROUP_HEADER,
    escaped,
    fact_rows,
    group_rows,
    points,
    table,
)
from kdplatform.study.groups import BETTER, UNDECIDED, WORSE

# Off-metric losses of the paper, with the platform's measures of each.
_KINDS = {
    "uncertainty": ("test/ece", "test/brier", "test/nll"),
    "boundary behaviour": (),
    "process reliability": (),
    "on-policy stability": (),
    "grounding": (),
    "privacy": (),
    "safety": (),
    "diversity": (),
}


def loss_statement(facts: CardFacts) -> str:
    """Returns the statement as Markdown."""
    lines = [
        f"# Distillation Loss Statement: {escaped(facts.name)}",
        "",
        f"{escaped(facts.role)}, compared with {escaped(facts.reference)} on {facts.examples} test "
        f"examples of {escaped(facts.dataset)} (digest {facts.digest}). Fractions, not per cent.",
        "",
        *points((f"{name}: {value}" for name, value in facts.settings.items()), "Not recorded."),
        "## Preservation targets",
        "",
        *_targets(facts),
        "## Preserved or gained",
        "",
        "For each metric, the 95% interval of the change excludes a loss. For each group, the test "
        "also rejects after Holm's correction for all groups.",
        "",
        *_changes(facts, BETTER),
        "## Lost",
        "",
        "For each metric, the 95% interval of the change excludes 0 on the worse side. For each "
        "group, the test also rejects after Holm's correction for all groups.",
        "",
        *_changes(facts, WORSE),
        "## Undecided",
        "",
        "For each metric, the interval of the change contains 0. For each group, the test does not "
        "reject after Holm's correction, even if the group's own interval excludes 0. The worse "
        "limit of an interval is the loss that could have hidden.",
        "",
        *_changes(facts, UNDECIDED),
        "## Not measured",
        "",
        *points(_not_measured(facts), "Every kind of loss named here was measured."),
        "## Why the remaining losses are acceptable",
        "",
        *_acceptable(facts),
    ]
    return "\n".join(lines) + "\n"


def _targets(facts: CardFacts) -> list[str]:
    gate = None if facts.provenance is None else facts.provenance.gate
    if gate is None:
        return ["None were stated: no gate was given.", ""]
    return points((rule.sentence for rule in gate.rules), "None.")


def _changes(facts: CardFacts, verdict: str) -> list[str]:
    metrics, groups = facts.of_verdict(verdict), facts.groups_of(verdict)
    lines = table(FACT_HEADER, fact_rows(metrics)) if metrics else []
    lines += table(GROUP_HEADER, group_rows(groups)) if groups else []
    return lines or ["Nothing.", ""]


def _not_measured(facts: CardFacts) -> list[str]:
    measured = {fact.metric for fact in facts.facts}
    missing = [kind for kind, metrics in _KINDS.items() if not measured & set(metrics)]
    found = [f"{kind}: not measured" for kind in missing]
    if facts.groups.empty:
        found.append("groups: not measured, no attribute was given")
    return found


def _acceptable(facts: CardFacts) -> list[str]:
    lost: list[Fact] = facts.of_verdict(WORSE)
    if not lost and not facts.groups_of(WORSE):
        return ["No loss is shown; the list above has the undecided changes.", ""]
    gate = None if facts.provenance is None else facts.provenance.gate
    if gate is None:
        return [
            "Not stated. No threshold for losses was given. The person responsible for the model "
            "explains here why the losses are acceptable.",
            "",
        ]
    kept = (
        "The losses keep the thresholds"
        if gate.outcome == "passed"
        else ("The losses do not keep the thresholds, and are therefore not acceptable")
    )
    return [f"{kept}: {escaped(gate.sentence)}.", ""]
