"""How far a teacher can be trusted with a class or group: its mean margin on held-out examples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import BeforeValidator, Field, field_validator

from kdplatform.data._text_files import read_csv
from kdplatform.errors import UserError
from kdplatform.lazy import functional, torch
from kdplatform.methods import Method, Needs, Run
from kdplatform.methods._groups import CLASSES, GroupedConfig, check_groups, groups_of
from kdplatform.progress import say
from kdplatform.settings.schema import NEUTRAL, Names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kdplatform.data import Dataset

# The columns of a file of margins.
_COLUMNS = ["name", "margin"]
_MOST_NAMED = 3


def _margins_of_a_file(value: object) -> object:
    """Returns the margins of a file as `name=margin`, and any other value unchanged."""
    if not (isinstance(value, str) and value.strip().lower().endswith(".csv")):
        return value
    try:
        cells = read_csv(Path(value.strip()))
    except UserError as error:
        raise ValueError(str(error)) from None
    if list(cells.columns) != _COLUMNS:
        raise ValueError(f"its columns are {', '.join(cells.columns)}; wanted: name, margin")
    return tuple(f"{name}={margin}" for name, margin in cells.itertuples(index=False))


class MarginConfig(GroupedConfig):
    """The fields of a method that trusts the teacher by its margins."""

    attribute: str = Field(
        CLASSES,
        description="groups of this attribute; label: the classes; "
        "auto: the project's first attribute",
    )
    scale: float = Field(1.0, ge=0, description="factor of the teacher's mean margins")
    floor: float = Field(
        0.0, ge=-1, le=1, description="lower bound of the mean margins, before they are scaled"
    )
    smoothing: float = Field(
        5.0,
        ge=0,
        description="number of examples at the overall mean margin that are added to every "
        "class or group",
    )
    # The field holds the values themselves, so that a run's key depends on them and not on a path.
    margins: Annotated[Names, BeforeValidator(_margins_of_a_file)] = Field(
        (),
        description="mean margins in place of measured ones: cat=0.4,dog=0.9, or a CSV file with "
        "columns name and margin",
        json_schema_extra=NEUTRAL,
    )

    @field_validator("margins")
    @classmethod
    def _each_is_a_margin(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for part in value:
            try:
                number = float(part.rpartition("=")[2])
            except ValueError:
                number = float("nan")
            if "=" not in part or not -1 <= number <= 1:
                raise ValueError(f"{part!r} is no name=margin, from -1 to 1")
        if len({part.rpartition("=")[0] for part in value}) != len(value):
            raise ValueError("a name is given twice")
        return value


ConfigT = TypeVar("ConfigT", bound=MarginConfig)


class MarginMethod(Method[ConfigT]):
    """A method that trusts the teacher by its margins on the validation split.

    The margin of an example is the teacher's probability of the label minus its highest other
    probability. The mean margin of the n examples of a class or group is pulled towards the overall
    mean, as by `smoothing` further examples. Margins are measured on validation examples, because
    on the teacher's own training examples they are always near 1. Given margins replace measured
    ones, without smoothing.

    Attributes:
        groups: int64 [N], the class or group of each training example; -1 if it is in none.
        trust: scale * max(floor, mean margin) of each class or group; the last value is that of all
            examples.
    """

    needs = Needs(teacher="logits", teacher_statistics=True)
    rebuilt = frozenset({"groups"})

    def check(self, dataset: Dataset) -> None:
        """Refuses data without the groups; names groups that have no margin of their own."""
        check_groups(self.config, dataset)
        groups = groups_of(dataset.train, self.config.attribute)
        names = dataset.class_names if self.config.attribute == CLASSES else groups.names
        if self.config.margins:
            self._given(names)
            return
        known = set(groups.of(dataset.val).tolist())
        if without := [repr(n) for place, n in enumerate(names) if place not in known]:
            say(
                f"without validation examples, the overall mean margin counts for: "
                f"{', '.join(without)}"
            )

    def begin(self, run: Run) -> None:
        """Measures the teacher's margins on the validation split, or uses the given ones."""
        config = self.config
        groups = groups_of(run.split, config.attribute)
        self.groups = groups.of(run.split)
        if config.margins:
            names = run.class_names if config.attribute == CLASSES else groups.names
            given = torch.tensor(self._given(names), dtype=torch.float64, device=run.device)
            overall = (given * groups.sizes.to(given)).sum() / groups.sizes.sum()
            self._trust(given, overall)
            return
        assert run.validation is not None
        margins = label_margins(run.teacher_logits("val"), run.validation.labels.to(run.device))
        own = groups.of(run.validation).to(run.device)
        overall = margins.mean()
        zeros = torch.zeros(len(groups.names), dtype=margins.dtype, device=run.device)
        sums = zeros.index_add(0, own[own >= 0], margins[own >= 0])
        counts = own[own >= 0].bincount(minlength=len(groups.names)) + config.smoothing
        means = (sums + config.smoothing * overall) / counts.clamp(min=1e-9)
        means = torch.where(counts > 0, means, overall)
        self._trust(means, overall)

    def _trust(self, means: Tensor, overall: Tensor) -> None:
        config = self.config
        self.trust = config.scale * torch.cat([means, overall[None]]).clamp(min=config.floor)

    def _given(self, names: Sequence[str]) -> list[float]:
        """Returns the given margins in the order of the classes or groups.

        Raises:
            UserError: the margins are those of other classes or groups.
        """
        pairs = [part.rpartition("=")[::2] for part in self.config.margins]
        given = {name: float(margin) for name, margin in pairs}
        kind = "classes" if self.config.attribute == CLASSES else "groups"
        missing = [name for name in names if name not in given]
        unknown = [name for name in given if name not in names]
        for words, own in (("is without", missing), ("has unknown", unknown)):
            if own:
                listed = ", ".join(map(repr, own[:_MOST_NAMED]))
                more = f" and {len(own) - _MOST_NAMED} more" if len(own) > _MOST_NAMED else ""
                raise UserError(
                    f"distillation.margins {words} {kind}: {listed}{more}; allowed: a margin for "
                    f"each of {len(names)} {kind}, and for no others"
                )
        return [given[name] for name in names]


def label_margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the label's probability minus the highest other probability: float64 [N]."""
    probabilities = logits.double().softmax(1)
    index = labels.unsqueeze(1)
    others = probabilities.masked_fill(functional.one_hot(labels, logits.shape[1]).bool(), 0.0)
    return probabilities.gather(1, index).squeeze(1) - others.amax(1)
