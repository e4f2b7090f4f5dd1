"""The teacher's logits of the training split, computed once per teacher and kept on disk.

For inputs that never change, the table has one row of logits per example. For augmented inputs it
has one row per example and view (crop and flip), in half precision. The table is used if it costs
less than running the teacher in every step of the study's students, and if it is not too large.
Otherwise the teacher itself is run.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from kdplatform.experiments.graph import FIRST, REFERENCE, STUDENT, Step
from kdplatform.experiments.logits_files import file_teacher
from kdplatform.experiments.parallel.computing import computed_logits, computed_views
from kdplatform.experiments.parallel.orders import (
    Tables,
    TeacherState,
    read_table,
    shared_tables,
    teacher_table,
)
from kdplatform.experiments.starting import restored_model, state_of_run
from kdplatform.experiments.trained import TrainedModel
from kdplatform.experiments.workspace import Workspace
from kdplatform.files import (
    is_whole,
    load_arrays,
    locked,
    remove_left_overs,
    save_arrays,
    written_digest,
    written_with_digest,
)
from kdplatform.methods import Needs
from kdplatform.progress import progress_bar, say
from kdplatform.settings.schema import AugmentationConfig, TrainingConfig
from kdplatform.training import (
    Ranks,
    Teacher,
    resolve_precision,
)
from kdplatform.training.batches import view_count

MOST_VIEW_BYTES = 4 * 2**30
# Expected number of students of a table: the paper's temperatures, 1 to 10, 20, 30, 40.
STUDENTS_OF_A_TEACHER = 13
_HALF = np.finfo(np.float16)


class Source(NamedTuple):
    """The source of a teacher's logits for a student's fit.

    Attributes:
        tables: files of its logits.
        logits: the content of these files.
    """

    teacher: Teacher
    model: TrainedModel
    tables: Tables[Path] = Tables()
    logits: Tables[Tensor] = Tables()

    def state(self) -> TeacherState:
        """Returns the values from which other ranks build the teacher."""
        step = self.model.step
        model = None if step.training.logits else state_of_run(step, self.model.run_id)
        return TeacherState(step, model, self.tables)


class AskedTeachers(NamedTuple):
    """The teachers of a fit.

    Attributes:
        sources: its teachers, in the order of their list.
        reference: the further model that the method uses.
    """

    sources: list[Source]
    reference: Source | None

    @property
    def digests(self) -> list[str]:
        """SHA-256 of the teachers' tables."""
        files = (source.tables.train for source in self.sources)
        return [written_digest(file) for file in files if file is not None]

    def share_tables(self, ranks: Ranks) -> None:
        """Sends the tables to ranks that lack the files, which receive them in the same order."""
        for source in [*self.sources, *([self.reference] if self.reference else [])]:
            shared_tables(ranks, source.tables, source.logits)


def teachers_for(
    workspace: Workspace, step: Step, needed: Mapping[str, TrainedModel], needs: Needs
) -> AskedTeachers:
    """Returns the teachers of a step's fit, or the first model of a step without a teacher.

    Args:
        needed: the step's models, by the names it gives them.
    """
    names = step.teachers or (FIRST,)
    sources = [teacher_for(workspace, step, needed[name], needs) for name in names]
    reference = None
    if needs.reference:
        asked = needed.get(REFERENCE, needed.get(STUDENT))
        assert asked is not None
        reference = teacher_for(workspace, step, asked, needs)
    return AskedTeachers(sources, reference)


def teacher_for(workspace: Workspace, student: Step, teacher: TrainedModel, needs: Needs) -> Source:
    """Returns the source of the teacher's logits for a student's fit.

    All students of this teacher share a table, also in other processes on the same data folder. One
    of them computes it while the others wait. The teacher itself is used in three cases: the method
    requires it; inputs are augmented, and a table of views does not pay (see `views_pay`) or does
    not fit on the disk; or images are streamed and augmented. Its weights are loaded when they are
    needed.
    """

    def network() -> nn.Module:
        return restored_model(teacher.step, workspace.dataset, teacher.run_id)

    if teacher.step.training.logits:
        return Source(file_teacher(teacher.step, workspace.dataset), teacher)
    logits = file = unlabeled = unlabeled_file = None
    split = workspace.dataset.unlabeled
    if needs.teacher == "logits":
        logits, file = _logits(workspace, student, teacher)
        if needs.unlabeled and split is not None and not student.training.augmentation.active:
            unlabeled, unlabeled_file = _split_logits(workspace, teacher, "unlabeled")
    asked = Teacher(
        teacher_table(workspace.dataset.train, logits),
        network,
        resolve_precision(teacher.step.training, workspace.device),
        unlabeled=teacher_table(split, unlabeled),
    )
    return Source(asked, teacher, Tables(file, unlabeled_file), Tables(logits, unlabeled))


def _logits(
    workspace: Workspace, student: Step, teacher: TrainedModel
) -> tuple[Tensor | None, Path | None]:
    """Returns the logits of a table and its file; neither if the network is used."""
    if not student.training.augmentation.active:
        return _split_logits(workspace, teacher, "train")
    train = workspace.dataset.train
    # A streamed split would be decoded again for every view, and has too many images anyway.
    in_memory = isinstance(train.inputs, Tensor)
    if in_memory and views_pay(student.training, len(train), len(workspace.dataset.class_names)):
        return _view_logits(workspace, student, teacher)
    return None, None


def views_pay(student: TrainingConfig, examples: int, classes: int) -> bool:
    """Returns whether a table of all views is cheaper than running the teacher in every step.

    The table costs one pass of the teacher over the training split per view. Without the table,
    each student costs one pass per epoch. The table has at most `MOST_VIEW_BYTES`. The decision
    depends only on settings in a student's key, so that equal keys are trained from equal logits.
    """
    views = view_count(student.augmentation)
    passes = student.epochs * STUDENTS_OF_A_TEACHER
    return views <= passes and examples * views * classes * _HALF.bits // 8 <= MOST_VIEW_BYTES


def _split_logits(workspace: Workspace, teacher: TrainedModel, split: str) -> tuple[Tensor, Path]:
    """Returns the teacher's logits of a split, from the cache or computed.

    [N, C], a row for each of the inputs that `Split.distinct` returns.
    """
    # Named by run and not by key, because a teacher that is trained again may differ in its last
    # bits.
    suffix = "" if split == "train" else f"-{split}"
    path = workspace.folder / "teacher_logits" / f"{teacher.run_id}{suffix}.npz"
    with locked(path.with_suffix(".lock"), _waiting(teacher.step)):
        if (cached := load_arrays(path)) is not None:
            return torch.from_numpy(cached["logits"]), path
        state = state_of_run(teacher.step, teacher.run_id)
        logits = computed_logits(workspace, state, split, distinct=True)
        save_arrays(path, {"logits": logits.numpy()})
        return logits, path


def _view_logits(
    workspace: Workspace, student: Step, teacher: TrainedModel
) -> tuple[Tensor | None, Path | None]:
    """Returns the teacher's logits [N, views, C] mapped from disk; None if the disk is full."""
    augmentation = student.training.augmentation
    flip = "-flip" if augmentation.horizontal_flip else ""
    name = f"{teacher.run_id}-crop{augmentation.crop_padding}{flip}.npy"
    path = workspace.folder / "teacher_logits" / name
    with locked(path.with_suffix(".lock"), _waiting(teacher.step)):
        if not is_whole(path) and not _write_views(workspace, augmentation, teacher, path):
            return None, None
    return read_table(path), path


def _write_views(
    workspace: Workspace, augmentation: AugmentationConfig, teacher: TrainedModel, path: Path
) -> bool:
    """Computes and stores the logits of all views; False if the disk has no room for them."""
    train = workspace.dataset.train
    views = view_count(augmentation)
    shape = (len(train), views, len(workspace.dataset.class_names))
    free = shutil.disk_usage(path.parent).free
    if np.prod(shape) * _HALF.bits // 8 > free // 2:
        say(f"{path.parent} has too little room for the logits of {views} views; not kept")
        return False
    remove_left_overs(path)
    state = state_of_run(teacher.step, teacher.run_id)
    with (
        computed_views(workspace, state, augmentation) as computed,
        written_with_digest(path) as temporary,
        progress_bar(views, "teacher's logits", "views") as bar,
    ):
        table = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=shape)
        for view, logits in enumerate(computed):
            # A logit that is too large for half precision is cut to the largest value; softmax is
            # one-hot anyway.
            table[:, view] = logits.numpy().clip(float(_HALF.min), float(_HALF.max))
            bar.update()
        table.flush()
    return True


def _waiting(teacher: Step) -> str:
    return f"{teacher.title}: another process computes its logits; waiting"
