"""What a method is: what it needs, what it is given, what it returns, and when it is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, NamedTuple, Protocol, TypeVar

from kdplatform.settings.schema import MethodConfig
from kdplatform.settings.words import plain_text

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from kdplatform.data import Dataset, Split
    from kdplatform.settings.schema import TrainingConfig

ConfigT = TypeVar("ConfigT", bound=MethodConfig)


@dataclass(frozen=True)
class Needs:
    """What a method asks of a run.

    Attributes:
        teacher: "logits" for the loop's own inputs, which a table can answer; "live" for the
            network itself, on any inputs; "none" without a teacher.
        teacher_statistics: whether it asks for the teacher's logits of whole splits.
        unlabeled: whether it learns from examples without labels too.
        several: whether it can learn from several teachers.
        reference: whether it asks a further model, `DistillationConfig.reference_teacher`.
        steps: whether it is trained in steps; a method that is not does everything in `begin`.
        from_first: whether it starts from the weights of the model of `first_training`.
        augmentation: whether it asks for images that are augmented.
        single_process: whether a model that learns by it cannot be trained by several processes,
            because it changes inputs or weights itself.
    """

    teacher: Literal["none", "logits", "live"] = "none"
    teacher_statistics: bool = False
    unlabeled: bool = False
    several: bool = False
    reference: bool = False
    steps: bool = True
    from_first: bool = False
    augmentation: bool = False
    single_process: bool = False


class Output(NamedTuple):
    """The output of a model for inputs.

    Attributes:
        logits: float32 [B, C].
        features: float32 [B, ...], the input of the model's last linear layer; None if it was not
            requested.
    """

    logits: Tensor
    features: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """The examples of one step, on the device.

    Attributes:
        inputs: [B, ...], augmented, not yet normalised: the model's argument. If several processes
            train a model, only the share of this process. All other attributes, and everything that
            `Run` returns for the batch, cover all B examples.
        labels: int64 [B]; -1 for an example without a label.
        ids: int64 [B], the examples' ids.
        rows: int64 [B], the examples' positions in their split. They index everything that is kept
            per example, such as a group.
        views: int64 [B], the number of each row's augmented view of its example, as in
            `training.batches`; None if inputs are not augmented.
        labelled: whether the examples are the labelled ones of the training split, which teacher
            tables cover.
        unlabeled: the step's examples without labels, for a method that needs them.
    """

    inputs: Tensor
    labels: Tensor
    ids: Tensor
    rows: Tensor
    views: Tensor | None = None
    labelled: bool = True
    unlabeled: Batch | None = None
    # The inputs as the loop made them, and how often they had been written to at that time.
    _made: tuple[Tensor, int] | None = field(default=None, repr=False)

    def as_made(self) -> Batch:
        """Returns the batch, marked as the loop's own: later changes of the inputs are noticed."""
        return Batch(**{**vars(self), "_made": (self.inputs, self.inputs._version)})

    @property
    def inputs_are_the_loops(self) -> bool:
        """Whether the inputs are those that the loop made: neither replaced nor written to."""
        if self._made is None:
            return False
        inputs, version = self._made
        return self.inputs is inputs and inputs._version == version


class Loss(NamedTuple):
    """What a method returns for a batch.

    Attributes:
        rows: [B]; their mean is minimised.
        student: the student's output that training accuracy is measured on.
        parts: [B] each, detached and unweighted: the terms of the loss that are worth a curve.
    """

    rows: Tensor
    student: Output
    parts: Mapping[str, Tensor]


class Run(Protocol):
    """A training run as a method sees it.

    Attributes:
        model: the model being trained.
        config: how it is trained.
        split: the labelled part of the training split.
        validation: the validation split; None if a fit has none.
        unlabeled: the examples without labels; None if every example has a label.
        class_names: in the order of the logits; empty if a fit has none.
        device: where the run computes.
        generator: random numbers for the method alone, on the CPU, restored with the run.
        epoch: finished epochs.
        step: finished steps, over all epochs.
        steps_per_epoch: steps of one epoch.
    """

    model: nn.Module
    config: TrainingConfig
    split: Split
    validation: Split | None
    unlabeled: Split | None
    class_names: Sequence[str]
    device: torch.device
    generator: torch.Generator
    epoch: int
    step: int
    steps_per_epoch: int

    def student(self, inputs: Tensor, *, features: bool = False) -> Output:
        """Returns the output of the model being trained for inputs [B, ...], with gradients.

        Raises:
            UserError: features are asked for and the model has no linear layer.
        """
        ...

    def teacher(self, batch: Batch, *, features: bool = False) -> Output:
        """Returns the teacher's output for a batch, without gradients: that of the first teacher.

        For inputs that the loop made, the logits come from a table. For all other inputs, and for
        features, the teacher's network is run.
        """
        ...

    def teachers(self, batch: Batch) -> Sequence[Tensor]:
        """Returns each teacher's logits [B, C] for a batch, in the order of the list."""
        ...

    def reference(self, batch: Batch) -> Tensor:
        """Returns the output of the method's further model for a batch: logits [B, C]."""
        ...

    def ask(self, network: nn.Module, inputs: Tensor, *, features: bool = False) -> Output:
        """Returns the output of any network for inputs [B, ...], run in the same way as `student`.

        For networks of the method's own, such as a mean teacher. Gradients flow, unless they are
        switched off around the call.

        Raises:
            UserError: features are asked for and the network has no linear layer.
        """
        ...

    def student_logits(self, split: Literal["train", "val"]) -> Tensor:
        """Returns logits [N, C] of a whole split by the model as it is, in eval mode."""
        ...

    def another_view(self, batch: Batch) -> Batch:
        """Returns a batch of the training split with its images augmented again.

        Raises:
            UserError: the images are decoded from files as they are needed.
        """
        ...

    def teacher_logits(self, split: Literal["train", "val"]) -> Tensor:
        """Returns the teacher's logits [N, C] of a whole split, not augmented."""
        ...


class Method(Generic[ConfigT]):
    """What a model is trained for: the loss of a batch, and two hooks around the steps.

    A subclass overrides `loss` and the hooks it needs; the loop knows no method. Modules,
    parameters and tensors that `begin` stores in attributes are the method's own. They are moved to
    the run's device, saved in the checkpoints and restored. Modules and parameters are trained
    along with the model, unless they require no gradient.

    Attributes:
        needs: what the method asks of a run.
        in_eval: names of attributes that stay in eval mode, such as a frozen copy of the student.
        rebuilt: names of attributes that `begin` builds again and that never change. They are left
            out of the checkpoints.
        by_reference: names of tensors that are large and change, such as a memory bank. Each is
            stored in a file of its own beside the checkpoint, which names it.
        config: the method's fields.
    """

    needs: Needs = Needs()
    in_eval: ClassVar[frozenset[str]] = frozenset()
    rebuilt: ClassVar[frozenset[str]] = frozenset()
    by_reference: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    def __repr__(self) -> str:
        """Returns the method and its fields, for messages."""
        fields = self.config.model_dump(exclude={"teacher_seed", "teachers", "start"})
        name = fields.pop("method")
        return f"{name}({', '.join(f'{k}={plain_text(v)}' for k, v in fields.items())})"

    def check(self, dataset: Dataset) -> None:
        """Called once the data are loaded, before anything of a command is trained.

        A line is printed only once, even if the method trains several models of the command.

        Raises:
            UserError: the method cannot learn from these data.
        """

    def check_teachers(self, names: Sequence[str], dataset: Dataset) -> None:
        """Called like `check`, with the teachers in words, in the order of the list.

        Raises:
            UserError: the method cannot learn from these teachers.
        """

    def begin(self, run: Run) -> None:
        """Called once, inside the run's seeded block, before a checkpoint is restored."""

    def row_shares(self, run: Run) -> Tensor | None:
        """Returns each training row's share of the draws: [N], on the CPU.

        With shares, every epoch draws as many rows as there are, with replacement. With None, an
        epoch sees each row once. Called once, after `begin`.
        """
        return None

    def loss(self, batch: Batch, run: Run) -> Loss:
        """Returns the loss of each row of the batch."""
        raise NotImplementedError

    def after_step(self, run: Run) -> None:
        """Called after the optimiser has changed the weights."""
