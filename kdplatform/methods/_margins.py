"""How far a teacher can be trusted with a class or group: its mean margin on held-out examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pydantic import Field

from kdplatform.lazy import functional, torch
from kdplatform.methods import Method, Needs, Run
from kdplatform.methods._groups import CLASSES, GroupedConfig, check_groups, groups_of
from kdplatform.progress import say

if TYPE_CHECKING:
    from torch import Tensor

    from kdplatform.data import Dataset


class MarginConfig(GroupedConfig):
    """The fields of a method that trusts the teacher by its margins."""

    attribute: str = Field(
        CLASSES, description="whose groups; label: the classes; auto: the project's first attribute"
    )
    scale: float = Field(1.0, ge=0, description="factor of the teacher's mean margins")
    floor: float = Field(0.0, ge=-1, le=1, description="least mean margin before it is scaled")
    smoothing: float = Field(
        5.0, ge=0, description="examples of the overall mean margin added to every class or group"
    )


ConfigT = TypeVar("ConfigT", bound=MarginConfig)


class MarginMethod(Method[ConfigT]):
    """A method that trusts the teacher by its margins on the validation split.

    The margin of an example is the teacher's probability of the label less its highest other one.
    Its mean over the n examples of a class or group is drawn to the overall mean, as by
    `smoothing` further examples. Margins on the teacher's own training examples are near 1
    whatever it has learnt, so that those held out of training are measured.

    Attributes:
        groups: int64 [N], the class or group of each training example; -1 in none.
        trust: scale * max(floor, mean margin) of each class or group; last that of all examples.
    """

    needs = Needs(teacher="logits", teacher_statistics=True)
    rebuilt = frozenset({"groups"})

    def check(self, dataset: Dataset) -> None:
        """Refuses data whose groups are not there; says which have no margin of their own."""
        check_groups(self.config, dataset)
        groups = groups_of(dataset.train, self.config.attribute)
        known = set(groups.of(dataset.val).tolist())
        names = dataset.class_names if self.config.attribute == CLASSES else groups.names
        if without := [repr(n) for place, n in enumerate(names) if place not in known]:
            say(
                f"without validation examples, the overall mean margin counts for: "
                f"{', '.join(without)}"
            )

    def begin(self, run: Run) -> None:
        """Measures the teacher's margins on the validation split."""
        config = self.config
        groups = groups_of(run.split, config.attribute)
        self.groups = groups.of(run.split)
        assert run.validation is not None
        margins = label_margins(run.teacher_logits("val"), run.validation.labels.to(run.device))
        own = groups.of(run.validation).to(run.device)
        overall = margins.mean()
        zeros = torch.zeros(len(groups.names), dtype=margins.dtype, device=run.device)
        sums = zeros.index_add(0, own[own >= 0], margins[own >= 0])
        counts = own[own >= 0].bincount(minlength=len(groups.names)) + config.smoothing
        means = (sums + config.smoothing * overall) / counts.clamp(min=1e-9)
        means = torch.where(counts > 0, means, overall)
        self.trust = config.scale * torch.cat([means, overall[None]]).clamp(min=config.floor)


def label_margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns by how much the label's probability exceeds the highest other: float64 [N]."""
    probabilities = logits.double().softmax(1)
    index = labels.unsqueeze(1)
    others = probabilities.masked_fill(functional.one_hot(labels, logits.shape[1]).bool(), 0.0)
    return probabilities.gather(1, index).squeeze(1) - others.amax(1)
