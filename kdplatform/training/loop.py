"""The training loop, for any model and any method. It does not know where results are stored.

Several processes may train one model together (`ranks.py`). Each runs the whole loop.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdplatform.data import Split
from kdplatform.errors import DivergedError, UserError
from kdplatform.methods import Batch, Method
from kdplatform.progress import progress_bar
from kdplatform.roles import Role
from kdplatform.settings.schema import TrainingConfig
from kdplatform.training.answers import Answers
from kdplatform.training.batches import TrainingBatches, check_augmentation
from kdplatform.training.checkpoint import Content, load_checkpoint, save_checkpoint
from kdplatform.training.method_state import MethodState
from kdplatform.training.precision import Precision
from kdplatform.training.ranks import ALONE, Ranks
from kdplatform.training.records import EpochMeter, EpochRecord
from kdplatform.training.schedule import build_optimizer, learning_rate
from kdplatform.training.seeds import Purpose, derived_seed, global_generators_seeded
from kdplatform.training.teacher import Teacher

# Reading a loss makes the host wait for the device. On the CPU it costs nothing.
CHECK_EVERY = {"cpu": 1}
CHECK_EVERY_ELSEWHERE = 50
# A checkpoint that takes long to write, such as one with a large memory bank, is written rarely.
# Writing takes at most one part in 21 of the time.
PAUSE_PER_SECOND = 20


@dataclass(frozen=True)
class FitResult:
    """The result of a fit.

    Attributes:
        records: one per epoch, including epochs restored from a checkpoint.
        restored_epochs: how many epochs were restored.
        precision: the precision that `auto` chose.
    """

    records: tuple[EpochRecord, ...]
    restored_epochs: int
    precision: Precision


def check_fit(
    method: Method[Any],
    config: TrainingConfig,
    split: Split,
    unlabeled: Split | None,
    processes: int = 1,
) -> None:
    """Refuses settings that `fit` cannot work with.

    Args:
        processes: number of processes that train the model together.

    Raises:
        UserError: augmentation is requested and the inputs are not images; the method needs
            augmentation or examples without labels, and there are none; the method does not allow
            several processes; or a batch has fewer examples than there are processes.
    """
    if processes > 1:
        _check_divisible(method, config, split, processes)
        if method.needs.unlabeled and unlabeled is not None:
            _check_divisible(method, config, unlabeled, processes)
    check_augmentation(config.augmentation, split)
    if method.needs.augmentation and not config.augmentation.active:
        raise UserError(
            f"method={method.config.method!r} learns from several views of an image, and without "
            "augmentation they are equal; allowed: student.augmentation.crop_padding or "
            "horizontal_flip"
        )
    if method.needs.unlabeled and unlabeled is None:
        raise UserError(
            f"method={method.config.method!r} learns from examples without labels, and "
            "dataset.unlabeled_fraction=0 leaves none; allowed: a number above 0 and below 1"
        )


def _check_divisible(
    method: Method[Any], config: TrainingConfig, split: Split, processes: int
) -> None:
    if method.needs.single_process:
        raise UserError(
            f"processes={processes} is not allowed with method={method.config.method!r}, which "
            "changes inputs or weights itself; allowed: 1"
        )
    least = len(split) // math.ceil(len(split) / config.batch_size)
    if method.needs.steps and least < processes:
        raise UserError(
            f"processes={processes} are more than the {least} examples of a batch "
            f"(batch_size={config.batch_size}); allowed: 1 to {least}"
        )


def fit(
    model: nn.Module,
    split: Split,
    method: Method[Any],
    config: TrainingConfig,
    *,
    seed: int,
    role: Role,
    device: torch.device,
    teacher: Teacher | Sequence[Teacher] | None = None,
    reference: Teacher | None = None,
    validation: Split | None = None,
    unlabeled: Split | None = None,
    class_names: Sequence[str] = (),
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 0.0,
    identity: str = "",
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
    ranks: Ranks = ALONE,
) -> FitResult:
    """Trains the model in place and leaves it in eval mode on the device.

    On the CPU, equal arguments give equal weights bit for bit, whether or not the fit was
    interrupted and restored from its checkpoint in between.

    Args:
        model: takes raw inputs; `initialised_model` returns one with fresh weights.
        config: its `model` and `method` are not read here.
        seed: the run's seed, see `seeds.py`.
        role: chooses the random streams together with the seed, and names the progress bar.
        teacher: one, or several for a method that learns from several.
        reference: the further model that a method uses.
        unlabeled: examples without labels, for a method that needs them.
        class_names: in the order of the logits, for a method with settings by class.
        validation: measured after every `config.validate_every` epochs, and after the last.
        checkpoint: file to restore from and to write after an epoch. The caller removes it when
            the run's results are safe.
        checkpoint_seconds: the shortest time between two checkpoints. It is longer if writing takes
            long. The checkpoint of the last epoch is always written.
        identity: the run's identity; a checkpoint of another identity is not used.
        on_epoch: called with every epoch's record, after its checkpoint if one is written. Epochs
            restored from a checkpoint are reported first, so that a caller always sees all epochs.
        ranks: the processes that train the model together. Each calls `fit` with equal arguments,
            except `checkpoint`, `checkpoint_seconds` and `on_epoch`, which only rank 0 has.

    Raises:
        DivergedError: the training or validation loss became NaN or infinite.
        UserError: `check_fit` refuses the settings.
        MachineError: the checkpoint cannot be written.
        ValueError: the method needs a teacher and none is given.
    """
    teachers = [teacher] if isinstance(teacher, Teacher) else list(teacher or ())
    if method.needs.teacher != "none" and not teachers:
        raise ValueError(f"{method!r} needs a teacher")
    if len(teachers) > 1 and not method.needs.several:
        raise ValueError(f"{method!r} learns from one teacher, and {len(teachers)} are given")
    check_fit(method, config, split, unlabeled, ranks.size)
    with global_generators_seeded(seed, role, Purpose.MODEL_NOISE, device):
        run = _Run(
            model,
            split,
            method,
            config,
            seed=seed,
            role=role,
            device=device,
            teachers=teachers,
            reference=reference,
            validation=validation,
            unlabeled=unlabeled,
            class_names=class_names,
            ranks=ranks,
        )
        method.begin(run)
        run.prepare(seed)
        content = None
        if checkpoint is not None and ranks.first:
            content = load_checkpoint(checkpoint, identity)
        if (content := ranks.told(content)) is not None:
            run.restore(content)
        restored_epochs = len(run.records)
        for record in run.records:
            on_epoch(record)
        saved = time.perf_counter()
        with run.bar:
            pause = checkpoint_seconds
            while method.needs.steps and run.epoch < config.epochs:
                record = run.train_epoch()
                begun = time.perf_counter()
                last = run.epoch == config.epochs
                due = checkpoint is not None and (begun - saved >= pause or last)
                if ranks.told(due):
                    content, references = run.content(), run.references()
                    if checkpoint is not None:
                        save_checkpoint(checkpoint, identity, content, references)
                    saved = time.perf_counter()
                    if checkpoint_seconds:
                        pause = max(checkpoint_seconds, PAUSE_PER_SECOND * (saved - begun))
                on_epoch(record)
    model.eval()
    return FitResult(tuple(run.records), restored_epochs, run.precision)


class _Run(Answers):
    """A fit in progress, as its method sees it. A checkpoint restores its state."""

    def __init__(
        self,
        model: nn.Module,
        split: Split,
        method: Method[Any],
        config: TrainingConfig,
        *,
        seed: int,
        role: Role,
        device: torch.device,
        teachers: Sequence[Teacher],
        reference: Teacher | None,
        validation: Split | None,
        unlabeled: Split | None,
        class_names: Sequence[str],
        ranks: Ranks,
    ) -> None:
        super().__init__(
            model,
            config,
            device=device,
            split=split,
            validation=validation,
            teachers=teachers,
            reference=reference,
            ranks=ranks,
        )
        self.unlabeled, self.class_names = unlabeled, class_names
        self.epoch = self.step = 0
        self.records: list[EpochRecord] = []
        self._method, self._state, self._role = method, MethodState(method), role

        def stream(purpose: Purpose) -> torch.Generator:
            return torch.Generator().manual_seed(derived_seed(seed, role, purpose))

        self.generator = stream(Purpose.METHOD)
        self._generators = {
            "method": self.generator,
            "data_order": stream(Purpose.DATA_ORDER),
            "unlabeled_order": stream(Purpose.UNLABELED_ORDER),
        }
        self._batches = self._batches_of(split, "data_order")
        self._unlabeled = None
        if method.needs.unlabeled and unlabeled is not None:
            self._unlabeled = self._batches_of(unlabeled, "unlabeled_order", labelled=False)
        self.steps_per_epoch = self._batches.steps
        self.bar = progress_bar(config.epochs * len(split), role, "images")

    def _batches_of(self, split: Split, stream: str, labelled: bool = True) -> TrainingBatches:
        generator = self._generators[stream]
        return TrainingBatches(
            split,
            self.config,
            device=self.device,
            generator=generator,
            labelled=labelled,
            ranks=self._ranks,
        )

    def prepare(self, seed: int) -> None:
        """Builds the optimiser, after the method has built its own parameters.

        Before this call all ranks draw equal numbers for the model. After it each has its own
        numbers.
        """
        self._batches.shares = self._method.row_shares(self)
        self._state.to(self.device)
        self.parameters = [*self.model.parameters(), *self._state.parameters()]
        self.optimizer = build_optimizer(self.parameters, self.config)
        if self._method.needs.steps:
            self.divide_model()
        if not self._ranks.first:
            rank = self._ranks.rank
            torch.manual_seed(derived_seed(seed, self._role, Purpose.MODEL_NOISE, rank))

    # ---- checkpoints

    def content(self) -> Content:
        """Returns the state that `restore` needs to continue as if uninterrupted."""
        noise = self._ranks.collected(torch.get_rng_state())
        noise_on_device = self._ranks.collected(
            torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        )
        return {
            "model": self.model.state_dict(),
            "method": self._state.content(),
            "optimizer": self.optimizer.state_dict(),
            "generators": {name: g.get_state() for name, g in self._generators.items()},
            "model_noise": noise[0],
            "model_noise_on_device": noise_on_device[0],
            # States of the other ranks; empty in a single process.
            "noise_of_ranks": list(zip(noise[1:], noise_on_device[1:], strict=True)),
            "epoch": self.epoch,
            "step": self.step,
            "records": [asdict(record) for record in self.records],
        }

    def references(self) -> dict[str, Tensor]:
        """Returns the large tensors of the method, which are in files beside the checkpoint."""
        return self._state.references()

    def restore(self, content: Content) -> None:
        """Restores the state of an interrupted run of the same identity."""
        self.model.load_state_dict(content["model"])
        self._state.restore(content["method"])
        self._state.restore_references(content["references"])
        self.optimizer.load_state_dict(content["optimizer"])
        for name, state in content["generators"].items():
            self._generators[name].set_state(state)
        noise = [(content["model_noise"], content["model_noise_on_device"])]
        noise += content.get("noise_of_ranks", [])
        # A rank that the interrupted run did not have starts at the beginning of its stream.
        if self._ranks.rank < len(noise):
            on_cpu, on_device = noise[self._ranks.rank]
            torch.set_rng_state(on_cpu)
            if self.device.type == "cuda":
                torch.cuda.set_rng_state(on_device, self.device)
        # The schedule is a function of the step: restoring the step restores it.
        self.epoch, self.step = content["epoch"], content["step"]
        self.records = [EpochRecord(**record) for record in content["records"]]
        self.bar.n = self.bar.initial = self.epoch * len(self.split)

    # ---- training

    def train_epoch(self) -> EpochRecord:
        """Trains one epoch, measures it on the validation split and records it."""
        started = time.perf_counter()
        self.bar.set_description(
            f"{self._role} epoch {self.epoch + 1}/{self.config.epochs}", refresh=False
        )
        self.model.train()
        self._state.train()
        meter = EpochMeter(self._batches.steps, self.device)
        check_every = CHECK_EVERY.get(self.device.type, CHECK_EVERY_ELSEWHERE)
        with self.divided(*self._state.modules()):
            for position, batch in enumerate(self._epoch_batches(), start=1):
                self._step(batch, meter)
                if position % check_every == 0 or position == self._batches.steps:
                    self._check(meter)
                self.bar.update(len(batch.labels))
        loss, accuracy, parts = meter.means()
        trained = time.perf_counter() - started
        self.epoch += 1
        every, last = self.config.validate_every, self.config.epochs
        looks = self.epoch % every == 0 or self.epoch == last
        val_loss, val_accuracy = self._validate() if looks else (None, None)
        record = EpochRecord(
            epoch=self.epoch,
            learning_rate=self._learning_rate(self.step - 1),
            train_loss=loss,
            train_accuracy=accuracy,
            train_parts=parts,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            seconds=time.perf_counter() - started,
            images_per_second=len(self.split) / trained,
        )
        self.records.append(record)
        return record

    def _epoch_batches(self) -> Iterator[Batch]:
        batches = self._batches.epoch()
        if self._unlabeled is None:
            return batches
        # Restarted in every epoch, so that a checkpoint needs no position in the stream.
        pairs = zip(batches, self._unlabeled.endless(), strict=False)
        return (replace(batch, unlabeled=other) for batch, other in pairs)

    def _step(self, batch: Batch, meter: EpochMeter) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(self.step)
        loss = self._method.loss(batch, self)
        self.optimizer.zero_grad()
        loss.rows.mean().backward()  # type: ignore[no-untyped-call]
        if not self._ranks.alone:
            own = self._state.parameters()
            self._ranks.average(p.grad for p in own if p.grad is not None)
        if self.config.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.config.gradient_clip)
        self.optimizer.step()
        self.step += 1
        self._method.after_step(self)
        meter.add(loss, batch.labels)

    def _check(self, meter: EpochMeter) -> None:
        position = meter.first_bad_step()
        if position is not None:
            step = self.epoch * self._batches.steps + position
            raise self._diverged("training loss", meter.loss(position), step)
        if not self.bar.disable:
            loss, accuracy, _ = meter.means()
            self.bar.set_postfix(loss=f"{loss:.3f}", accuracy=f"{accuracy:.1%}", refresh=False)

    def _diverged(self, what: str, value: float, step: int) -> DivergedError:
        return DivergedError(
            f"{what} of the {self._role} became {value} at step {step + 1} "
            f"(epoch {step // self._batches.steps + 1} of {self.config.epochs}) with "
            f"learning_rate={self.config.learning_rate:g} ({self._learning_rate(step):.3g} at "
            f"this step), optimizer={self.config.optimizer!r}, "
            f"gradient_clip={self.config.gradient_clip}, method {self._method!r}; "
            "try a lower learning rate, a warm-up or gradient clipping"
        )

    def _learning_rate(self, step: int) -> float:
        return learning_rate(self.config, step, self._batches.steps)

    def _validate(self) -> tuple[float | None, float | None]:
        if self.validation is None:
            return None, None
        logits = self.validation.in_the_running(self.student_logits("val"))
        labels = self.validation.labels.to(self.device)
        loss = float(F.cross_entropy(logits, labels))
        # No later training loss shows the weights of the last step.
        if not math.isfinite(loss):
            raise self._diverged("validation loss", loss, self.step - 1)
        return loss, float((logits.argmax(dim=1) == labels).double().mean())
