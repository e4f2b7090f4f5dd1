"""Computations of a command, in one process or together with other ranks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from kdplatform.experiments.graph import Step
from kdplatform.experiments.model_state import ModelState
from kdplatform.experiments.parallel.orders import Order, Predict, PredictViews, split_of
from kdplatform.experiments.parallel.team import current_team
from kdplatform.experiments.workspace import Workspace
from kdplatform.settings.schema import AugmentationConfig
from kdplatform.training import ALONE, Ranks, view_logits


@contextmanager
def followed(workspace: Workspace, order: Callable[[], Order]) -> Iterator[Ranks]:
    """Lets other ranks, if any, follow an order while the block does this process's part."""
    if workspace.processes == 1:
        yield ALONE
        return
    with current_team(workspace).following(workspace, order()) as ranks:
        yield ranks


def computed_logits(
    workspace: Workspace, state: ModelState, split: str, *, distinct: bool = False
) -> Tensor:
    """Returns a model's logits of a split: float32 [N, C] on the CPU, each row by one rank.

    Args:
        distinct: whether only the split's distinct inputs are used.
    """
    own = split_of(workspace.dataset, split)
    inputs = own.distinct()[0] if distinct else own.inputs
    model = state.model(workspace.dataset)
    with followed(workspace, lambda: Predict(state, split, distinct)) as ranks:
        return ranks.predict_logits(model, inputs, device=workspace.device).cpu()


def fitted_logits(workspace: Workspace, step: Step, model: nn.Module, split: str) -> Tensor:
    """Returns the logits [N, C] of a split by a step's model, which this process has."""
    inputs = split_of(workspace.dataset, split).inputs
    with followed(workspace, lambda: Predict(ModelState.of(step, model), split)) as ranks:
        return ranks.predict_logits(model, inputs, device=workspace.device)


@contextmanager
def computed_views(
    workspace: Workspace, state: ModelState, augmentation: AugmentationConfig
) -> Iterator[Iterator[Tensor]]:
    """Yields the logits of all views of the training images, see `view_logits`."""
    images = workspace.dataset.train.inputs
    assert isinstance(images, Tensor)
    model = state.model(workspace.dataset)
    with followed(workspace, lambda: PredictViews(state, augmentation)) as ranks:
        yield view_logits(model, images, augmentation, device=workspace.device, ranks=ranks)
