"""The model of a step before its training, and the same model with a run's weights."""

from collections.abc import Mapping

import torch
from mlflow import MlflowClient
from torch import Tensor, nn

from kdplatform.data import Dataset
from kdplatform.errors import UserError, one_line
from kdplatform.experiments.artifacts import artifact_path
from kdplatform.experiments.graph import Step
from kdplatform.experiments.model_state import (
    ModelState,
    initialised,
    normalised_by,
    resized_to,
)
from kdplatform.experiments.weights import (
    TAG_IMAGE_SIZE,
    WEIGHTS,
    find_weights,
    read_weights,
    section_of,
)
from kdplatform.models.loading import for_classes, load_weights, refuse_not_finite
from kdplatform.models.normalization import InputNormalization
from kdplatform.models.pretrained import ImageInput, pretrained
from kdplatform.models.user_models import is_user_model
from kdplatform.progress import say
from kdplatform.settings.schema import TrainingConfig
from kdplatform.tensor_files import UnreadableError, read_tensors

_PROBED_ROWS = 2


def starting_model(step: Step, dataset: Dataset) -> nn.Module:
    """Returns the step's model with the weights that it starts from, on the CPU.

    Raises:
        UserError: weights do not exist or do not fit, or the model cannot take the data.
        MachineError: weights that a library publishes cannot be downloaded.
    """
    training = step.training
    if training.pretrained:
        return _pretrained(step, dataset)
    if training.weights is not None:
        return _with_weights(step, dataset, training.weights)
    model = initialised(step, dataset, _given(training, dataset), training.image_size)
    if is_user_model(training.model):
        _probe(training.model, model, dataset)  # this gives lazy layers their weights
        refuse_not_finite(model.state_dict(), training.model)
    return model


def restored_model(step: Step, dataset: Dataset, run_id: str) -> nn.Module:
    """Returns the trained model of a run, on the CPU and in eval mode.

    Raises:
        UserError: its weights are not what was logged.
    """
    return state_of_run(step, run_id).model(dataset)


def state_of_run(step: Step, run_id: str) -> ModelState:
    """Returns the trained model of a run as values that can cross processes.

    Raises:
        UserError: its weights are not what was logged.
    """
    try:
        state: dict[str, Tensor] = read_tensors(artifact_path(run_id, WEIGHTS))
    except UnreadableError as error:
        raise UserError(
            f"run {run_id}: its {WEIGHTS} cannot be read ({error}); allowed: a run as it was logged"
        ) from None
    size = MlflowClient().get_run(run_id).data.tags.get(TAG_IMAGE_SIZE)
    return ModelState(step, state, int(size) if size else None)


def start_from(model: nn.Module, source: nn.Module, title: str) -> str:
    """Copies weights of another model where names and shapes agree; returns a line about it.

    Raises:
        UserError: no weight fits.
    """
    theirs, own = dict(source.named_parameters()), dict(model.named_parameters())
    fitting = {n for n, tensor in own.items() if n in theirs and theirs[n].shape == tensor.shape}
    if not fitting:
        raise UserError(
            f"distillation.start='teacher': no weight of the student has name and shape of one of "
            f"the teacher's ({title}); allowed: models of one family, or fresh"
        )
    state = source.state_dict()
    # Statistics that a layer keeps beside its weights are copied with them.
    layers = {name.rpartition(".")[0] for name in fitting}
    taken = {
        name: state[name]
        for name, tensor in model.state_dict().items()
        if name in state
        and state[name].shape == tensor.shape
        and (name in fitting or (name not in own and name.rpartition(".")[0] in layers))
    }
    model.load_state_dict(taken, strict=False)
    return f"{title}: starts from {len(fitting)} of {len(own)} weights of the teacher"


def size_tag(model: nn.Module) -> dict[str, str]:
    """Returns the tag with the size to which a model resizes images; empty if it does not."""
    size = resized_to(model)
    return {} if size is None else {TAG_IMAGE_SIZE: str(size)}


def _pretrained(step: Step, dataset: Dataset) -> nn.Module:
    training, published = step.training, pretrained(step.training.model)
    vocabulary = dataset.vocabulary
    if vocabulary is not None and vocabulary.name not in published.tokenizers:
        raise UserError(
            f"dataset.tokenizer={vocabulary.name!r} does not fit model={training.model!r} with "
            f"pretrained=true; allowed: {' | '.join(published.tokenizers)}"
        )
    model = initialised(step, dataset, published.images, training.image_size)
    network = model.model if isinstance(model, InputNormalization) else model
    load_weights(
        network,
        published.load(),
        source=published.source,
        head_may_differ=not training.frozen,
        new_layers=published.new_layers,
    )
    return model


def _with_weights(step: Step, dataset: Dataset, weights: str) -> nn.Module:
    training, source = step.training, find_weights(weights)
    if source.model not in (None, training.model):
        raise UserError(
            f"weights={weights!r} are those of model={source.model!r}, not of {training.model!r}; "
            f"allowed: set {section_of(step.role)}.model={source.model}"
        )
    state: Mapping[str, Tensor] = read_weights(weights, source, training.weights_entry)
    size = training.image_size or source.image_size
    own, given = normalised_by(state, dataset), _given(training, dataset)
    if own is not None and given not in (None, own):
        raise UserError(
            f"mean={training.mean}, std={training.std} are not those of weights={weights!r}; "
            "allowed: none, because these weights contain their own"
        )
    model = initialised(step, dataset, own or given, size)
    # The state dict of the network alone, without the normalisation of its inputs.
    bare = isinstance(model, InputNormalization) and "mean" not in state
    target = model.model if bare and isinstance(model, InputNormalization) else model
    if source.are_of_another(dataset.digest) and not dataset.facts().holds_images:
        parts = "columns" if dataset.vocabulary is None else "tokens"
        parts = "users" if dataset.facts().interactions is not None else parts
        say(
            f"{weights}: trained on another dataset; inputs are matched by position, so its "
            f"{parts} must be these, in this order"
        )
    trains = not training.frozen
    if source.class_names:
        names = (source.class_names, dataset.class_names)
        state = for_classes(target, state, *names, source=weights, head_may_differ=trains)
    load_weights(target, state, source=weights, head_may_differ=trains)
    return model


def _given(training: TrainingConfig, dataset: Dataset) -> ImageInput | None:
    """Returns the normalisation of images from the configuration, if it is given."""
    if training.mean is None or training.std is None:
        return None
    if not dataset.facts().holds_images:
        raise UserError(f"mean={training.mean} is not allowed here; allowed: with images")
    mean, std = (tuple(torch.tensor(given).tolist()) for given in (training.mean, training.std))
    return ImageInput(mean, std, None)


@torch.no_grad()
def _probe(name: str, model: nn.Module, dataset: Dataset) -> None:
    """Runs a user's model on the first rows.

    Raises:
        UserError: it fails, or its outputs are not logits.
    """
    inputs = dataset.test.inputs[:_PROBED_ROWS]
    expected = (len(inputs), len(dataset.class_names))
    was_training = model.training
    try:
        output = model.eval()(inputs)
    except Exception as error:
        raise UserError(
            f"model={name!r} fails on {inputs.dtype} inputs of shape {tuple(inputs.shape)} "
            f"({type(error).__name__}: {one_line(error)}); allowed: a module that takes raw inputs"
        ) from error
    model.train(was_training)
    if not isinstance(output, Tensor) or tuple(output.shape) != expected:
        said = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(f"model={name!r} returned {said}; allowed: logits of shape {expected}")
