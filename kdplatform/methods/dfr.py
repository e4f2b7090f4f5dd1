"""Deep feature reweighting: the last layer refitted on balanced validation rows.

Kirichenko, Izmailov, Wilson, ICLR 2023, arXiv 2204.02937. A first model is trained by cross
entropy, in a step of its own. Each draw takes equally many validation rows of every group, as many
as the smallest group has. A logistic regression on their standardised features gives the weights of
the last layer. The result is the mean of `draws` such fits. The paper tunes an L1 penalty. Ours is
scikit-learn's L2 penalty of a given strength, which is our reading. The model's validation numbers
are no longer independent of training. Its test numbers still are.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from kdplatform.errors import UserError
from kdplatform.lazy import torch
from kdplatform.methods import Batch, Loss, Method, Needs, Run
from kdplatform.methods._groups import (
    BY_CLASS_AUTO,
    GroupedConfig,
    check_groups,
    groups_of,
)
from kdplatform.progress import say
from kdplatform.settings.schema import Count, MethodConfig, Positive, TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from kdplatform.data import Dataset, Inputs

_BATCH = 256
# With fewer rows of each group, a fit follows these rows more than the group.
_FEW_ROWS = 5


class Config(GroupedConfig):
    """Whose groups are balanced, and how strongly the fit is drawn to 0."""

    method: Literal["dfr"] = Field("dfr", description="method")
    attribute: str = Field(
        BY_CLASS_AUTO,
        description="groups of this attribute; label*A: of class and A together; "
        "A auto: the project's first attribute; label: the classes",
    )
    strength: Positive = Field(1.0, description="strength of the L2 penalty, 1 / C in scikit-learn")
    draws: Count = Field(
        10, description="number of group-balanced samples whose fitted layers are averaged"
    )

    def first_training(self, training: TrainingConfig) -> TrainingConfig:
        """Returns the training of the first model: that of this model, but with cross entropy."""
        return training.model_copy(update={"method": MethodConfig()})


class DeepFeatureReweighting(Method[Config]):
    """The first model with another last layer; nothing is trained in steps."""

    needs = Needs(steps=False, from_first=True)

    def check(self, dataset: Dataset) -> None:
        """Refuses data without the groups, or without every class in validation.

        Prints a line if a group has so few validation rows that the fits depend on them.
        """
        check_groups(self.config, dataset)
        groups = groups_of(dataset.train, self.config.attribute).of(dataset.val)
        labels = set(dataset.val.labels[groups >= 0].tolist())
        missing = [n for c, n in enumerate(dataset.class_names) if c not in labels]
        if missing:
            raise UserError(
                f"method='dfr': {len(missing)} of {len(dataset.class_names)} classes have no "
                f"validation row in a group of {self.config.attribute} ({missing[0]!r}); allowed: "
                "a validation split with every class"
            )
        counts = groups[groups >= 0].bincount()
        least = int(counts[counts > 0].min())
        if least < _FEW_ROWS:
            say(
                f"method='dfr': the smallest group of {self.config.attribute} has {least} "
                f"validation rows, so each fit of the last layer uses {least} of every group; a "
                "larger dataset.val_fraction gives more"
            )

    def begin(self, run: Run) -> None:
        """Refits the last layer."""
        assert run.validation is not None
        layer = _last_linear(run)
        features = _features(run, run.validation.inputs)
        groups = groups_of(run.split, self.config.attribute).of(run.validation).numpy()
        labels = run.validation.labels.numpy()
        mean, std = features.mean(0), features.std(0)
        std = np.where(std > 0, std, 1.0)
        fits = [
            self._fitted((features[rows] - mean) / std, labels[rows], layer.out_features)
            for rows in (_balanced(groups, run.generator) for _ in range(self.config.draws))
        ]
        weight = np.mean([own for own, _ in fits], axis=0) / std
        bias = np.mean([own for _, own in fits], axis=0) - weight @ mean
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight))
            assert layer.bias is not None
            layer.bias.copy_(torch.from_numpy(bias))

    def _fitted(
        self, features: NDArray[Any], labels: NDArray[Any], classes: int
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Returns weight [C, F] and bias [C] of a logistic regression."""
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=1 / self.config.strength, max_iter=1000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one that has not converged is near enough
            model.fit(features, labels)
        weight, bias = model.coef_, model.intercept_
        if len(weight) == 1:  # two classes: the log odds of the second
            weight, bias = np.stack([-weight[0], weight[0]]) / 2, np.array([-bias[0], bias[0]]) / 2
        full = np.zeros((classes, features.shape[1])), np.full(classes, -1e3)
        full[0][model.classes_], full[1][model.classes_] = weight, bias
        return full

    def loss(self, batch: Batch, run: Run) -> Loss:
        """Is not called: there are no steps."""
        raise NotImplementedError


def _balanced(groups: NDArray[Any], generator: torch.Generator) -> NDArray[Any]:
    """Draws as many rows of every group as the smallest group has."""
    own = [np.flatnonzero(groups == group) for group in np.unique(groups[groups >= 0])]
    least = min(map(len, own))
    drawn = [rows[torch.randperm(len(rows), generator=generator).numpy()[:least]] for rows in own]
    return np.sort(np.concatenate(drawn))


def _batches(run: Run, inputs: Inputs) -> Iterator[Tensor]:
    rows = torch.split(torch.arange(len(inputs)), _BATCH)
    stream = (inputs[own] for own in rows) if torch.is_tensor(inputs) else inputs.batches(rows)
    return (batch.to(run.device) for batch in stream)


def _features(run: Run, inputs: Inputs) -> NDArray[Any]:
    """Returns the inputs of the last linear layer, in eval mode: float64 [N, F]."""
    run.model.eval()
    parts = []
    with torch.no_grad():
        for batch in _batches(run, inputs):
            features = run.student(batch, features=True).features
            assert features is not None
            parts.append(features.double().cpu())
    return torch.cat(parts).numpy()


def _last_linear(run: Run) -> nn.Linear:
    """Returns the linear layer whose output is the output of the model.

    Raises:
        UserError: the model has no last layer with a bias.
    """
    assert run.validation is not None
    run.model.eval()
    called: list[tuple[nn.Linear, Tensor]] = []

    def take(module: nn.Linear, arguments: object, output: Tensor) -> None:
        called.append((module, output))

    layers = [module for module in run.model.modules() if isinstance(module, torch.nn.Linear)]
    handles = [layer.register_forward_hook(take) for layer in layers]
    try:
        with torch.no_grad():
            said = run.student(next(_batches(run, run.validation.inputs))).logits
    finally:
        for handle in handles:
            handle.remove()
    if called:
        last, output = called[-1]
        if last.bias is not None and torch.equal(output.float(), said):
            return last
    raise UserError(
        f"method='dfr' refits the last layer, and {type(run.model).__name__} ends in no linear "
        "layer with a bias; allowed: a model that does"
    )
