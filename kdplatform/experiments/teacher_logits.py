"""The teacher's logits of the training split, computed once per teacher."""

import torch
from torch import Tensor, nn

from kdplatform.experiments.identity import Step
from kdplatform.experiments.records import WEIGHTS
from kdplatform.experiments.tracking import artifact_path
from kdplatform.experiments.workspace import Workspace
from kdplatform.files import load_arrays, save_arrays
from kdplatform.progress import say
from kdplatform.training import (
    Teacher,
    TeacherModel,
    TeacherTable,
    initialised_model,
    predict_logits,
    resolve_precision,
)


def teacher_for(workspace: Workspace, teacher: Step, run_id: str) -> Teacher:
    """Returns where a student's fit takes the teacher's logits from.

    A table that every student of this teacher shares when the student's inputs never change, the
    teacher itself when they are augmented.

    Args:
        run_id: the teacher's run, whose weights are loaded where they are needed.
    """
    augmented = workspace.config.student.augmentation.active
    if not augmented:
        return TeacherTable(_training_logits(workspace, teacher, run_id))
    model = load_model(workspace, teacher, run_id)
    return TeacherModel(model, resolve_precision(teacher.training, workspace.device))


def load_model(workspace: Workspace, step: Step, run_id: str) -> nn.Module:
    """Returns the trained model of a run, on the CPU and in eval mode."""
    model = initialised_model(
        step.training.model, workspace.dataset, seed=step.seed, role=step.role.stream
    )
    weights = torch.load(artifact_path(run_id, WEIGHTS), map_location="cpu", weights_only=True)
    model.load_state_dict(weights)
    return model.eval()


def _training_logits(workspace: Workspace, teacher: Step, run_id: str) -> Tensor:
    """Returns the teacher's logits [N, C] of the training split, from the cache or computed."""
    path = workspace.folder / "teacher_logits" / f"{teacher.key}.npz"
    try:
        cached = load_arrays(path)
    except ValueError as error:
        say(f"{error}; it is made again")
        cached = None
    if cached is not None:
        return torch.from_numpy(cached["logits"])
    model = load_model(workspace, teacher, run_id)
    logits = predict_logits(model, workspace.dataset.train.inputs, device=workspace.device).cpu()
    save_arrays(path, {"logits": logits.numpy()})
    return logits
