"""The facts of a card, from a comparison of two sides or from an arm of a study."""

import re
from collections.abc import Mapping, Sequence

from kdplatform.reporting.cards.facts import CardFacts, facts_of
from kdplatform.roles import Role
from kdplatform.study.classes import ClassWise
from kdplatform.study.evidence import Evidence, accuracy_change
from kdplatform.study.findings import make_findings
from kdplatform.study.groupwise import GroupWise
from kdplatform.study.metrics import REFERENCES
from kdplatform.study.provenance import Provenance
from kdplatform.study.study import NDS, TEACHER, Arm, Study

# Names of tasks on model hubs. Unknown datasets count as images.
_TASKS = {"table": "tabular-classification", "hatexplain": "text-classification"}
_IMAGES, _UNKNOWN = "image-classification", "other"
_LONGEST_SLUG = 90
# Beginnings of notes that only explain the printed table of a comparison.
_HOW_TO_READ = ("Values are in %", "EOD, DPD", "I(f)", "Disagreement:")


def card_of_sides(
    study: Study, reference: Arm, side: Arm, provenance: Provenance, cautions: Sequence[str]
) -> CardFacts:
    """Returns the facts of side B of a comparison, compared with side A.

    Args:
        study: the two sides; their titles are the settings `A` and `B`.
    """
    titles = study.settings
    return _card(
        study,
        side,
        reference,
        name=titles["B"],
        role="Side B of a comparison",
        base_model="",  # B need not be distilled from A
        task=_UNKNOWN,
        dataset="not stated",
        settings={"Side A": titles["A"], "Side B": titles["B"]},
        cautions=[line for line in cautions if not line.startswith(_HOW_TO_READ)],
        provenance=provenance,
    )


def cards_of_study(
    study: Study,
    dataset: str,
    base_model: str,
    settings: Mapping[str, str],
    provenance: Mapping[Arm, Provenance] | None = None,
) -> dict[Arm, CardFacts]:
    """Returns the facts of every distilled arm of a study, compared with its teacher.

    Without a teacher it is compared with the NDS.
    """
    reference = TEACHER if TEACHER in study.arms else NDS
    if reference not in study.arms:
        return {}
    cautions = []
    if len(study.all_seeds) == 1:
        cautions.append("One seed: intervals are conditional on this model.")
    return {
        arm: _card(
            study,
            arm,
            reference,
            name=f"{study.name} {arm.title(with_method=True)}",
            role="A distilled student",
            base_model=base_model,
            task=_TASKS.get(dataset, _IMAGES),
            dataset=dataset,
            settings=settings,
            cautions=cautions,
            provenance=(provenance or {}).get(arm),
            library="pytorch",
        )
        for arm in study.distilled
    }


def _card(
    study: Study,
    arm: Arm,
    reference: Arm,
    *,
    name: str,
    role: str,
    base_model: str,
    task: str,
    dataset: str,
    settings: Mapping[str, str],
    cautions: Sequence[str],
    provenance: Provenance | None,
    library: str = "",
) -> CardFacts:
    facts, groups = facts_of(study, arm, reference)
    titles = study.settings
    held = titles["A"] if name == titles.get("B") else reference.title()
    return CardFacts(
        name=name,
        slug=slug(name),
        role=role,
        reference=held,
        base_model=slug(base_model) if base_model else "",
        task=task,
        dataset=dataset,
        examples=len(study.any_table),
        digest=study.any_table.digest,
        classes=study.class_names,
        seeds=len(study.seeds(arm)),
        facts=facts,
        groups=groups,
        settings=settings,
        findings=_findings(study, arm, reference),
        cautions=cautions,
        provenance=provenance,
        library=library,
    )


def _findings(study: Study, arm: Arm, reference: Arm) -> list[str]:
    """The findings, by the rule of `study.findings`."""
    role = Role(reference.role)
    assert role in REFERENCES
    pairs = list(study.pairs_with(role, arm))
    if not pairs:
        return []
    first, second = (list(tables) for tables in zip(*pairs, strict=True))
    groups = GroupWise(study).tests.get((arm, role)) if study.attributes else None
    evidence = Evidence(
        "",
        ("the reference", "the model"),
        (len(study.seeds(reference)), len(study.seeds(arm))),
        [accuracy_change(first, second)],
        groups,
        ClassWise(study).tests.get((arm, role)),
        study.class_names,
    )
    return [finding.sentence for finding in make_findings([evidence])]


def slug(name: str) -> str:
    """Returns a name for model hubs: letters, digits, dots, dashes and underscores.

    >>> slug("digits DS kd T=4")
    'digits-DS-kd-T-4'
    """
    return re.sub(r"[^\w.]+", "-", name, flags=re.ASCII)[:_LONGEST_SLUG].strip("-.") or "model"
