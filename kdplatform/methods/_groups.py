"""The groups and the class frequencies of the training split, for methods that use them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pydantic import Field

from kdplatform.data import SEVERAL, unknown_attribute
from kdplatform.errors import UserError
from kdplatform.lazy import pandas, torch
from kdplatform.methods._building import BuildingConfig
from kdplatform.progress import say
from kdplatform.settings.schema import MethodConfig

if TYPE_CHECKING:
    from torch import Tensor

    from kdplatform.data import Dataset, Split

# Names that stand for an attribute: the project's first attribute, and the classes. Prediction
# tables call the class `label`, so no attribute has this name.
AUTO, CLASSES = "auto", "label"
# Prefix of an attribute: groups of class and attribute together, such as `3 red`.
BY_CLASS = f"{CLASSES}*"
BY_CLASS_AUTO = BY_CLASS + AUTO
_MOST_NAMED = 5
ConfigT = TypeVar("ConfigT", bound=MethodConfig)


class GroupedConfig(MethodConfig):
    """The fields of a method that uses groups."""

    attribute: str = Field(
        AUTO,
        description="groups of this attribute; auto: the project's first attribute; "
        "label: the classes; label*A: class and A together",
    )


@dataclass(frozen=True)
class Groups:
    """The groups of an attribute in the training split.

    Examples in several groups at once form a group of their own, `A + B`.

    Attributes:
        attribute: a column, or `CLASSES`.
        names: in alphabetical order; classes in the order of their numbers.
        sizes: int64 [G], their examples in the training split.
    """

    attribute: str
    names: tuple[str, ...]
    sizes: Tensor

    def of(self, split: Split) -> Tensor:
        """Returns the group of each example of a split: int64 [N], -1 for one that is in none."""
        if self.attribute == CLASSES:
            return split.labels
        own = _group_names(split, self.attribute)
        places = pandas.Index(self.names).get_indexer(pandas.Index(own))
        return torch.from_numpy(places.astype("int64"))


def groups_of(split: Split, attribute: str) -> Groups:
    """Returns the groups of an attribute in the training split.

    Raises:
        UserError: there is no such column, or it has fewer than two groups.
    """
    if attribute == CLASSES:
        counts = class_counts(split)
        return Groups(attribute, tuple(map(str, range(len(counts)))), counts)
    column = column_of(attribute)
    if column not in split.columns:
        known = ", ".join(map(str, split.columns)) or "none"
        raise UserError(f"attribute={attribute!r} is no column of the training split ({known})")
    names = tuple(sorted(_group_names(split, attribute).dropna().unique()))
    if len(names) < 2:
        found = f"one group ({names[0]!r})" if names else "no group"
        raise UserError(
            f"attribute={attribute!r} has {found} in the training split; allowed: an attribute "
            f"with at least two, or {CLASSES!r} for the classes"
        )
    groups = Groups(attribute, names, torch.zeros(0))
    own = groups.of(split)
    return Groups(attribute, names, own[own >= 0].bincount(minlength=len(names)))


def column_of(attribute: str) -> str:
    """Returns the column that groups go by: the attribute, without `label*` before it."""
    return attribute.removeprefix(BY_CLASS)


def _group_names(split: Split, attribute: str) -> pandas.Series:
    """Returns the name of each example's group; missing for one in none."""
    column = split.columns[column_of(attribute)]
    if not attribute.startswith(BY_CLASS):
        return column
    numbers = pandas.Series(split.labels.numpy().astype(str), index=column.index)
    return (numbers + " " + column).where(column.notna())


def group_shares(groups: Tensor) -> Tensor:
    """Returns each row's share of the draws if all groups are drawn equally often: float64 [N].

    Args:
        groups: int64 [N]; -1 for a row in no group, which is drawn as often as a row of a group of
            mean size.
    """
    inside = groups >= 0
    counts = groups[inside].bincount()
    mean = counts[counts > 0].double().mean()
    sizes = torch.where(inside, counts[groups.clamp(min=0)].double(), mean)
    return (1 / sizes) / (1 / sizes).sum()


def check_groups(config: GroupedConfig, dataset: Dataset) -> None:
    """Checks that a method's groups exist in the data, and prints them.

    Raises:
        UserError: the dataset has no such attribute, or the attribute has fewer than two groups.
    """
    attribute = config.attribute
    if attribute == CLASSES:
        return
    if not dataset.attributes:
        raise _without_groups(config.method, f"dataset {dataset.name}")
    column = column_of(attribute)
    if column not in dataset.attributes:
        raise unknown_attribute("attribute", column, dataset.name, dataset.attributes)
    groups = groups_of(dataset.train, attribute)
    pairs = list(zip(groups.names, groups.sizes.tolist(), strict=True))
    words = [f"{name} {size:,}" for name, size in pairs[:_MOST_NAMED]]
    if len(pairs) > _MOST_NAMED:
        words.append(f"{len(pairs) - _MOST_NAMED} more")
    if outside := len(dataset.train) - int(groups.sizes.sum()):
        words.append(f"in no group {outside:,}")
    several = any(SEVERAL in name for name in groups.names)
    note = "; an example in several is in a group of its own" if several else ""
    say(f"groups of {attribute} in training: {', '.join(words)}{note}")


def grouping(config: MethodConfig) -> GroupedConfig | None:
    """Returns the method that uses groups: this one or its base; None if neither does."""
    if isinstance(config, BuildingConfig):
        config = config.base_config
    return config if isinstance(config, GroupedConfig) else None


def grouped_by_project(config: ConfigT, attributes: tuple[str, ...], project: str) -> ConfigT:
    """Returns the method with `auto` replaced by the project's first attribute.

    Raises:
        UserError: the project has no attributes.
    """
    grouped = grouping(config)
    if grouped is None or column_of(grouped.attribute) != AUTO:
        return config
    if not attributes:
        raise _without_groups(grouped.method, f"project {project}")
    by_class = BY_CLASS if grouped.attribute.startswith(BY_CLASS) else ""
    attribute = by_class + attributes[0]
    if not isinstance(config, BuildingConfig):
        return config.model_copy(update={"attribute": attribute})
    fields = (*getattr(config, config.base_settings), f"attribute={attribute}")
    return config.model_copy(update={config.base_settings: fields})


def class_counts(split: Split) -> Tensor:
    """Returns how many examples of each class a training split has: int64 [C], none of them 0.

    Every dataset has training examples of all its classes.
    """
    return split.labels.bincount()


def effective_weights(counts: Tensor, beta: float) -> Tensor:
    """Returns (1 - beta) / (1 - beta^n) of each class: float64 [C] (Cui et al. 2019).

    This is the reciprocal of the effective number of n examples, which rises from 1 to 1 / (1 -
    beta).
    """
    exponents = counts.double() * (math.log(beta) if beta > 0 else -math.inf)
    return -(1 - beta) / torch.expm1(exponents)


def _without_groups(method: str, where: str) -> UserError:
    return UserError(
        f"method={method!r} uses groups, and {where} has no attributes; allowed: data with "
        f"attributes, or attribute={CLASSES!r} for the classes as groups"
    )
