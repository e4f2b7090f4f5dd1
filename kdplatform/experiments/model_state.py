"""A model as values that cross processes: its step, its weights and the size of its images."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from kdplatform.data import Dataset
from kdplatform.experiments.graph import Step
from kdplatform.models.normalization import InputNormalization
from kdplatform.models.pretrained import ImageInput
from kdplatform.training import initialised_model


@dataclass(frozen=True)
class ModelState:
    """The values from which a step's model is rebuilt without a tracking store.

    Attributes:
        state: its state dict, on the CPU.
        image_size: size to which it resizes images; None if it does not.
    """

    step: Step
    state: Mapping[str, Tensor]
    image_size: int | None

    @staticmethod
    def of(step: Step, model: nn.Module) -> "ModelState":
        """Returns the state of a step's model."""
        state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
        return ModelState(step, state, resized_to(model))

    def model(self, dataset: Dataset) -> nn.Module:
        """Returns the model, on the CPU and in eval mode."""
        images = normalised_by(self.state, dataset)
        model = initialised(self.step, dataset, images, self.image_size)
        model.load_state_dict(self.state)
        return model.eval()


def resized_to(model: nn.Module) -> int | None:
    """Returns the size to which a model resizes its images; None if it does not."""
    return model.image_size if isinstance(model, InputNormalization) else None


def initialised(
    step: Step, dataset: Dataset, trained_on: ImageInput | None, image_size: int | None
) -> nn.Module:
    """Returns the step's model with fresh weights, see `initialised_model`."""
    return initialised_model(
        step.training.model,
        dataset,
        seed=step.seed,
        role=step.role,
        trained_on=trained_on,
        image_size=image_size,
    )


def normalised_by(state: Mapping[str, Tensor], dataset: Dataset) -> ImageInput | None:
    """Returns the normalisation of images that some weights contain, if any."""
    if not dataset.facts().holds_images or not {"mean", "std"} <= state.keys():
        return None
    return ImageInput(tuple(state["mean"].tolist()), tuple(state["std"].tolist()), None)
