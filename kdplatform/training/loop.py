"""The training loop: any model, any objective, one device, and nothing of where results go."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from kdplatform.config import TrainingConfig
from kdplatform.data import Split
from kdplatform.errors import DivergedError
from kdplatform.objectives import Batch, Objective, Output, TrainingState
from kdplatform.progress import progress_bar
from kdplatform.training.batches import TrainingBatches
from kdplatform.training.checkpoint import Content, load_checkpoint, save_checkpoint
from kdplatform.training.precision import Precision, autocast, resolve_precision
from kdplatform.training.prediction import predict_logits
from kdplatform.training.records import EpochMeter, EpochRecord
from kdplatform.training.schedule import (
    build_optimizer,
    clip_gradients,
    learning_rate,
    set_learning_rate,
)
from kdplatform.training.seeds import Purpose, Role, derived_seed, global_generators_seeded
from kdplatform.training.teacher import Teacher

# Looking at a loss makes the host wait for a device; on the CPU it costs nothing.
CHECK_EVERY = {"cpu": 1}
CHECK_EVERY_ELSEWHERE = 50


@dataclass(frozen=True)
class FitResult:
    """What a fit did.

    Attributes:
        records: one per epoch, those restored from a checkpoint included.
        restored_epochs: how many of them were.
        precision: what `auto` meant.
    """

    records: tuple[EpochRecord, ...]
    restored_epochs: int
    precision: Precision


def fit(
    model: nn.Module,
    split: Split,
    objective: Objective,
    config: TrainingConfig,
    *,
    seed: int,
    role: Role,
    device: torch.device,
    teacher: Teacher | None = None,
    validation: Split | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 0.0,
    identity: str = "",
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
) -> FitResult:
    """Trains the model in place and leaves it in eval mode on the device.

    On the CPU, equal arguments give equal weights bit for bit, whether or not the fit was
    interrupted and restored from its checkpoint in between.

    Args:
        model: takes raw inputs; fresh weights come from `initialised_model`.
        split: what to train on.
        objective: what for.
        config: how; `model` and what the objective was built from are not read again.
        seed: of the run, see `seeds.py`.
        role: with the seed chooses the random streams; names the progress bar.
        device: where.
        teacher: for an objective that needs one.
        validation: measured after every `config.validate_every` epochs, and after the last.
        checkpoint: file to restore from and to write after an epoch. The caller removes it when
            the run's results are safe.
        checkpoint_seconds: the least time between two checkpoints; the last epoch's is always
            written.
        identity: of the run; a checkpoint of another identity is not used.
        on_epoch: called with every epoch's record, after its checkpoint where one is written.
            Epochs restored from a checkpoint are reported first, so that a caller always sees them
            all.

    Returns:
        The records of all epochs.

    Raises:
        DivergedError: the training or validation loss became NaN or infinite.
        UserError: augmentation is asked for where the inputs are not images.
        MachineError: the checkpoint cannot be written.
        ValueError: the objective needs a teacher and none is given.
    """
    if objective.needs_teacher and teacher is None:
        raise ValueError(f"{objective!r} needs a teacher")
    with global_generators_seeded(seed, role, Purpose.MODEL_NOISE, device):
        run = _Run(
            model,
            split,
            objective,
            config,
            seed=seed,
            role=role,
            device=device,
            teacher=teacher,
            validation=validation,
        )
        if checkpoint is not None and (content := load_checkpoint(checkpoint, identity)):
            run.restore(content)
        restored_epochs = len(run.records)
        for record in run.records:
            on_epoch(record)
        saved = time.perf_counter()
        with run.bar:
            while run.state.epoch < config.epochs:
                record = run.train_epoch()
                due = time.perf_counter() - saved >= checkpoint_seconds
                if checkpoint is not None and (due or run.state.epoch == config.epochs):
                    save_checkpoint(checkpoint, identity, run.content())
                    saved = time.perf_counter()
                on_epoch(record)
    model.eval()
    return FitResult(tuple(run.records), restored_epochs, run.precision)


class _Run:
    """A fit in progress: everything that a checkpoint has to bring back."""

    def __init__(
        self,
        model: nn.Module,
        split: Split,
        objective: Objective,
        config: TrainingConfig,
        *,
        seed: int,
        role: Role,
        device: torch.device,
        teacher: Teacher | None,
        validation: Split | None,
    ) -> None:
        layout = torch.channels_last if config.channels_last else torch.preserve_format
        self.model = model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
        self.objective = objective.to(device)
        self.config = config
        self.role = role
        self.device = device
        self.teacher = teacher.to(device) if teacher is not None else None
        self.validation = validation
        self.precision = resolve_precision(config, device)
        self.generator = torch.Generator().manual_seed(derived_seed(seed, role, Purpose.DATA_ORDER))
        self.batches = TrainingBatches(
            split,
            batch_size=config.batch_size,
            augmentation=config.augmentation,
            channels_last=config.channels_last,
            device=device,
            generator=self.generator,
        )
        self.state = TrainingState(model, split, config, device, self.batches.steps)
        self.objective.before_fit(self.state)
        self.parameters = [*model.parameters(), *objective.parameters()]
        self.optimizer = build_optimizer(self.parameters, config)
        self.records: list[EpochRecord] = []
        self.bar = progress_bar(config.epochs * len(split), role, "images")

    def content(self) -> Content:
        """Returns what `restore` needs to go on as if nothing had happened."""
        return {
            "model": self.model.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "data_order": self.generator.get_state(),
            "model_noise": torch.get_rng_state(),
            "model_noise_on_device": (
                torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
            ),
            "epoch": self.state.epoch,
            "step": self.state.step,
            "records": [asdict(record) for record in self.records],
        }

    def restore(self, content: Content) -> None:
        """Takes over what a run of the same identity had reached."""
        self.model.load_state_dict(content["model"])
        self.objective.load_state_dict(content["objective"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.generator.set_state(content["data_order"])
        torch.set_rng_state(content["model_noise"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(content["model_noise_on_device"], self.device)
        # The schedule is a function of the step: restoring the step restores it.
        self.state.epoch, self.state.step = content["epoch"], content["step"]
        self.records = [EpochRecord(**record) for record in content["records"]]
        self.bar.n = self.bar.initial = self.state.epoch * len(self.state.split)

    def train_epoch(self) -> EpochRecord:
        """Trains one epoch, measures it on the validation split and records it."""
        started = time.perf_counter()
        self.bar.set_description(
            f"{self.role} epoch {self.state.epoch + 1}/{self.config.epochs}", refresh=False
        )
        self.model.train()
        self.objective.train()
        meter = EpochMeter(self.batches.steps, self.device)
        check_every = CHECK_EVERY.get(self.device.type, CHECK_EVERY_ELSEWHERE)
        for position, batch in enumerate(self.batches.epoch(), start=1):
            self._step(batch, meter)
            if position % check_every == 0 or position == self.batches.steps:
                self._check(meter)
            self.bar.update(len(batch.labels))
        loss, accuracy, parts = meter.means()
        trained = time.perf_counter() - started
        self.state.epoch += 1
        every, last = self.config.validate_every, self.config.epochs
        looks = self.state.epoch % every == 0 or self.state.epoch == last
        val_loss, val_accuracy = self._validate() if looks else (None, None)
        record = EpochRecord(
            epoch=self.state.epoch,
            learning_rate=self._learning_rate(self.state.step - 1),
            train_loss=loss,
            train_accuracy=accuracy,
            train_parts=parts,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            seconds=time.perf_counter() - started,
            images_per_second=len(self.state.split) / trained,
        )
        self.records.append(record)
        return record

    def _step(self, batch: Batch, meter: EpochMeter) -> None:
        set_learning_rate(self.optimizer, self._learning_rate(self.state.step))
        batch = self.objective.before_batch(batch, self.state)
        teacher_output = self.teacher(batch) if self.teacher is not None else None
        with autocast(self.precision, self.device):
            logits = self.model(batch.inputs)
        student_output = Output(logits.float())
        losses = self.objective(student_output, teacher_output, batch, self.state)
        self.optimizer.zero_grad()
        losses.loss.mean().backward()
        clip_gradients(self.parameters, self.config.gradient_clip)
        self.optimizer.step()
        self.state.step += 1
        self.objective.after_step(self.state)
        meter.add(losses, student_output, batch.labels)

    def _check(self, meter: EpochMeter) -> None:
        position = meter.first_bad_step()
        if position is not None:
            step = self.state.epoch * self.batches.steps + position
            raise self._diverged("training loss", meter.loss(position), step)
        if not self.bar.disable:
            loss, accuracy, _ = meter.means()
            self.bar.set_postfix(loss=f"{loss:.3f}", accuracy=f"{accuracy:.1%}", refresh=False)

    def _diverged(self, what: str, value: float, step: int) -> DivergedError:
        return DivergedError(
            f"{what} of the {self.role} became {value} at step {step + 1} "
            f"(epoch {step // self.batches.steps + 1} of {self.config.epochs}) with "
            f"learning_rate={self.config.learning_rate:g} ({self._learning_rate(step):.3g} at "
            f"this step), optimizer={self.config.optimizer!r}, "
            f"gradient_clip={self.config.gradient_clip}, objective {self.objective!r}; "
            "try a lower learning rate, a warm-up or gradient clipping"
        )

    def _learning_rate(self, step: int) -> float:
        return learning_rate(self.config, step, self.batches.steps)

    def _validate(self) -> tuple[float | None, float | None]:
        if self.validation is None:
            return None, None
        logits = predict_logits(
            self.model,
            self.validation.inputs,
            device=self.device,
            precision=self.precision,
            channels_last=self.config.channels_last,
        )
        labels = self.validation.labels.to(self.device)
        loss = float(F.cross_entropy(logits, labels))
        # The weights of the last step show in no training loss any more.
        if not math.isfinite(loss):
            raise self._diverged("validation loss", loss, self.state.step - 1)
        return loss, float((logits.argmax(dim=1) == labels).double().mean())
