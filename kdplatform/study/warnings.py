"""Warnings about models that have learnt nothing, and about attributes that are not compared."""

from collections.abc import Callable, Mapping

import numpy as np

from kdplatform.analysis.collapse import Collapse, collapse_of
from kdplatform.analysis.tables import attribute_groups, listed
from kdplatform.study.study import Arm, Study


def collapse_warnings(
    study: Study,
    names: Mapping[Arm, str] | None = None,
    model: Callable[[int], str] = "seed {}".format,
) -> list[str]:
    """Returns one sentence for each way in which models of a study have collapsed.

    A constant model gets only the warning that it is constant. That it is at chance and never
    predicts the other classes follows from it.

    Args:
        names: names of the arms for the reader; None: those of the study.
        model: names a model of an arm by its seed in the study.
    """
    titles = study.names if names is None else names
    attributes = tuple(name for name in study.attributes if isinstance(name, str))
    constant: dict[int, list[str]] = {}
    at_chance: list[str] = []
    never: dict[tuple[str, ...], list[str]] = {}
    for arm, models in study.arms.items():
        for seed, trained in sorted(models.items()):
            title = titles[arm] if len(models) == 1 else f"{titles[arm]} {model(seed)}"
            found = collapse_of(trained.test, attributes, study.min_group_size)
            if found.constant is not None:
                constant.setdefault(found.constant, []).append(title)
                continue
            if found.at_chance:
                at_chance.append(
                    f"{title} (accuracy {_percent(found.accuracy)}, by chance "
                    f"{_percent(found.chance)})"
                )
            if missing := _never(study, found):
                never.setdefault(missing, []).append(title)
    return [
        *(
            f"{listed(models)} predicts class {study.class_names[label]} for every example; that "
            "looks fair (EOD and DPD are 0) because it treats all examples alike."
            for label, models in constant.items()
        ),
        *([f"Not better than chance: {listed(at_chance)}."] if at_chance else []),
        *(
            f"{listed(models)} never {'predicts' if len(models) == 1 else 'predict'} "
            f"{listed(what)}."
            for what, models in never.items()
        ),
    ]


def unmeasured_attributes(study: Study) -> list[str]:
    """Returns one sentence for each attribute that has fewer than two groups large enough."""
    found = []
    for name in study.attributes:
        if not isinstance(name, str):
            continue
        groups = attribute_groups(study.any_table, name)
        counted = groups.codes[groups.codes >= 0]
        sizes = np.bincount(counted, minlength=len(groups.members)) @ groups.members
        large = int((sizes >= study.min_group_size).sum())
        if large >= 2:
            continue
        sentence = (
            f"{name} was not compared: {large} of its {len(groups.names)} groups "
            f"{'has' if large == 1 else 'have'} the {study.min_group_size} examples that a group "
            "needs, and two are needed."
        )
        if len(groups.names) > 2 and all(_is_number(group) for group in groups.names):
            sentence += " Put its numbers into ranges first, such as 30 to 45."
        found.append(sentence)
    return found


def arms_at_chance(study: Study) -> frozenset[Arm]:
    """Returns the arms with a model that is not better than chance."""
    return frozenset(
        arm
        for arm, models in study.arms.items()
        if any(collapse_of(model.test).at_chance for model in models.values())
    )


def _never(study: Study, found: Collapse) -> tuple[str, ...]:
    classes = [f"class {study.class_names[label]}" for label in found.never]
    in_groups = [
        f"class {study.class_names[label]} for {attribute} {group}"
        for attribute, group, label in found.never_in_groups
    ]
    return (*classes, *in_groups)


def _is_number(text: str) -> bool:
    """Returns whether the name of a group is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"
