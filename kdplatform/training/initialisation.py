"""A run's model with its initial weights."""

import torch
from torch import nn

from kdplatform.data import DataFacts, Dataset
from kdplatform.errors import UserError
from kdplatform.models import build_model
from kdplatform.models.normalization import InputNormalization
from kdplatform.models.pretrained import ImageInput
from kdplatform.models.user_models import is_user_model, user_model
from kdplatform.roles import Role
from kdplatform.training.seeds import Purpose, global_generators_seeded


def initialised_model(
    name: str,
    dataset: Dataset,
    *,
    seed: int,
    role: Role,
    trained_on: ImageInput | None = None,
    image_size: int | None = None,
) -> nn.Module:
    """Builds the named model for a dataset, on the CPU.

    It takes the dataset's raw inputs. Its weights depend on name, shapes, seed and role (see
    `seeds.py`). torch's global generators are restored afterwards.

    Args:
        name: an architecture, or a function of the user's as `module:function`.
        trained_on: channels, mean and deviation for normalising images; by default those of the
            training split.
        image_size: side to which the model resizes images; None: that of `trained_on`, or none.

    Raises:
        UserError: there is no such model, or it cannot take these inputs.
    """
    facts = dataset.facts()
    with global_generators_seeded(seed, role, Purpose.INITIALISATION):
        if is_user_model(name):
            return user_model(name, facts)
        if not facts.holds_numbers:
            return build_model(name, facts)
        if image_size is None and trained_on is not None:
            image_size = trained_on.image_size
        seen = _as_seen(name, facts, trained_on, image_size)
        network = build_model(name, seen)
    if trained_on is None:
        mean, std = dataset.channel_statistics
    else:
        mean, std = torch.tensor(trained_on.mean), torch.tensor(trained_on.std)
    return InputNormalization(network, mean, std, image_size)


def _as_seen(
    name: str, facts: DataFacts, trained_on: ImageInput | None, image_size: int | None
) -> DataFacts:
    """Returns the description of the data for the network, after normalisation and resizing."""
    if trained_on is None and image_size is None:
        return facts
    channels, side = facts.image_shape(name)
    if trained_on is not None:
        expected = len(trained_on.mean)
        if channels not in (1, expected):
            raise UserError(
                f"model={name!r} was trained on images of {expected} channels; this dataset has "
                f"{channels}; allowed: 1 or {expected}"
            )
        channels = expected
    side = image_size or side
    return DataFacts((channels, side, side), facts.class_names)
