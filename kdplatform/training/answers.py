"""The outputs that a method may request from a run: student, teachers, and whole splits."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from kdplatform.data import Inputs, Split
from kdplatform.methods import Batch, Output
from kdplatform.settings.schema import TrainingConfig
from kdplatform.training.batches import TrainingBatches
from kdplatform.training.features import logits_and_features
from kdplatform.training.precision import autocast, resolve_precision
from kdplatform.training.ranks import Ranks, data_parallel, synchronised
from kdplatform.training.teacher import Teacher

# Number of rows in the check whether a model uses all of its parameters.
_PROBED_ROWS = 2


class Answers:
    """The answers of a run to its method, see `methods.Run`.

    Within `divided`, each rank runs networks on its share of a batch, and gets the outputs of all
    ranks. Outside, each rank works for itself.
    """

    generator: torch.Generator
    _batches: TrainingBatches

    def __init__(
        self,
        model: nn.Module,
        config: TrainingConfig,
        *,
        device: torch.device,
        split: Split,
        validation: Split | None,
        teachers: Sequence[Teacher],
        reference: Teacher | None,
        ranks: Ranks,
    ) -> None:
        layout = torch.channels_last if config.channels_last else torch.preserve_format
        self.model = model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
        self.config, self.device = config, device
        self.split, self.validation = split, validation
        self.precision = resolve_precision(config, device)
        self._teachers = [teacher.to(device) for teacher in teachers]
        self._reference = reference.to(device) if reference is not None else None
        self._ranks, self._in_step, self._network = ranks, False, self.model

    def divide_model(self) -> None:
        """Prepares the model for batches that are divided among several ranks."""
        if not self._ranks.alone:
            unused = self._has_unused_parameters()
            self._network = data_parallel(self.model, self.device, unused)

    @torch.enable_grad()
    def _has_unused_parameters(self) -> bool:
        """Returns whether some trained parameter has no influence on the logits."""
        trained = [own for own in self.model.parameters() if own.requires_grad]
        if not trained:
            return False
        was_training = self.model.training
        self.model.eval()
        logits = self.model(self.split.inputs[:_PROBED_ROWS].to(self.device))
        self.model.train(was_training)
        slopes = torch.autograd.grad(logits.float().sum(), trained, allow_unused=True)
        return any(slope is None for slope in slopes)

    @contextmanager
    def divided(self, *modules: nn.Module) -> Iterator[None]:
        """Divides the batches of the block among the ranks.

        Args:
            modules: modules of the method, whose batch normalisation is synchronised like the
                model's.
        """
        if self._ranks.alone:
            yield
            return
        with synchronised(self.model, *modules):
            self._in_step = True
            try:
                yield
            finally:
                self._in_step = False

    def student(self, inputs: Tensor, *, features: bool = False) -> Output:
        """Returns the output of the model being trained for inputs [B, ...], with gradients."""
        return self.ask(self.model, inputs, features=features)

    def ask(self, network: nn.Module, inputs: Tensor, *, features: bool = False) -> Output:
        """Returns the output of any network for inputs [B, ...], with gradients."""
        if network is self.model and self._in_step:
            network = self._network
        with autocast(self.precision, self.device):
            if not features:
                return self._of_all(Output(network(inputs).float()))
            logits, taken = logits_and_features(network, inputs)
        return self._of_all(Output(logits.float(), taken.float()))

    def _of_all(self, own: Output) -> Output:
        """Returns the outputs of all ranks for a batch; outside steps each rank keeps its own."""
        if self._ranks.alone or not self._in_step:
            return own
        whole = self._ranks.whole
        features = None if own.features is None else whole(own.features)
        return Output(whole(own.logits), features)

    def teacher(self, batch: Batch, *, features: bool = False) -> Output:
        """Returns the teacher's output for a batch, without gradients."""
        return self._told(self._teachers[0], batch, features=features)

    def teachers(self, batch: Batch) -> Sequence[Tensor]:
        """Returns each teacher's logits [B, C] for a batch, in the order of the list."""
        return [self._told(teacher, batch).logits for teacher in self._teachers]

    def reference(self, batch: Batch) -> Tensor:
        """Returns the logits [B, C] of the method's further model for a batch."""
        assert self._reference is not None
        return self._told(self._reference, batch).logits

    def _told(self, teacher: Teacher, batch: Batch, *, features: bool = False) -> Output:
        answer = teacher(batch, features=features)
        return answer if teacher.looks_up(batch, features=features) else self._of_all(answer)

    def another_view(self, batch: Batch) -> Batch:
        """Returns a batch of the training split with its images augmented again."""
        return self._batches.another_view(batch, self.generator)

    def teacher_logits(self, split: Literal["train", "val"]) -> Tensor:
        """Returns the teacher's logits [N, C] of a whole split, not augmented."""
        inputs = self._inputs_of(split)
        return self._teachers[0].of_split(split, inputs, self._ranks)

    def student_logits(self, split: Literal["train", "val"]) -> Tensor:
        """Returns the logits [N, C] of a whole split from the current model, in eval mode."""
        return self._ranks.predict_logits(
            self.model,
            self._inputs_of(split),
            device=self.device,
            precision=self.precision,
            channels_last=self.config.channels_last,
        )

    def _inputs_of(self, split: Literal["train", "val"]) -> Inputs:
        asked = self.split if split == "train" else self.validation
        if asked is None:
            raise ValueError("the method asks for the validation split, and none is given")
        return asked.inputs
