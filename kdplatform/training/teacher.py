"""The source of the teacher's logits for a batch: a table, or the network."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from kdplatform.data import Inputs
from kdplatform.errors import UserError
from kdplatform.methods import Batch, Output
from kdplatform.settings.schema import AugmentationConfig
from kdplatform.training.batches import crop_and_flip, pad_images, view_changes, view_count
from kdplatform.training.features import logits_and_features
from kdplatform.training.precision import Precision, autocast
from kdplatform.training.prediction import predict_logits
from kdplatform.training.ranks import ALONE, Ranks


class TeacherTable:
    """Logits of the loop's own inputs, computed once for the whole training split.

    A table of views is stored in half precision, which keeps a logit to one part in 2,048.

    Args:
        logits: row i is of example i of the training split. Floating point [N, C] for inputs that
            never change; [N, views, C] for augmented ones, views as `batches.view_numbers` counts
            them. It may be a file mapped into memory: only the batch's logits are read.
        places: int64 [N], which row of `logits` is of each example, where examples share inputs;
            None: each has its own.
    """

    def __init__(self, logits: Tensor, places: Tensor | None = None) -> None:
        self._logits, self._places = logits.detach(), places

    def __call__(self, batch: Batch) -> Tensor:
        """Looks the batch's logits up: float32 [B, C]."""
        if self._logits.ndim == 2:
            rows = batch.rows if self._places is None else self._places[batch.rows]
            return self._logits[rows].float()
        assert batch.views is not None
        return self._logits[batch.rows, batch.views].float()

    def to(self, device: torch.device) -> "TeacherTable":
        """Returns the table on the device."""
        places = None if self._places is None else self._places.to(device)
        return TeacherTable(self._logits.to(device), places)


class Teacher:
    """Gives the teacher's output for a batch.

    The tables answer for inputs that the loop made, and for them alone: inputs that a method
    replaced or changed, and features, are asked of the network.

    Args:
        table: logits of the training split; None where the network is asked for everything.
        unlabeled: logits of the examples without labels, likewise.
        splits: logits of whole splits, not augmented, by name; of the others the network is asked.
        network: returns the network, which takes raw inputs; called when it is needed first. None
            for a teacher that is a table alone.
        precision: of the network's forward pass.
    """

    def __init__(
        self,
        table: TeacherTable | None,
        network: Callable[[], nn.Module] | None,
        precision: Precision = "fp32",
        *,
        unlabeled: TeacherTable | None = None,
        splits: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._tables = {True: table, False: unlabeled}
        self._splits = splits or {}
        self._load = network
        self._precision = precision
        self._network: nn.Module | None = None
        self._device = torch.device("cpu")

    def to(self, device: torch.device) -> "Teacher":
        """Moves tables and network to the device and returns itself."""
        self._device = device
        for labelled, table in self._tables.items():
            self._tables[labelled] = None if table is None else table.to(device)
        if self._network is not None:
            self._network.to(device)
        return self

    def looks_up(self, batch: Batch, *, features: bool = False) -> bool:
        """Tells whether a table answers, and not the network."""
        there = self._tables[batch.labelled] is not None
        return there and batch.inputs_are_the_loops and not features

    @torch.no_grad()
    def __call__(self, batch: Batch, *, features: bool = False) -> Output:
        """Returns the teacher's output for the batch; no gradient flows into it.

        A table answers for all rows of the batch, the network for its inputs.
        """
        table = self._tables[batch.labelled]
        if table is not None and self.looks_up(batch, features=features):
            return Output(table(batch))
        network = self.network()
        with autocast(self._precision, batch.inputs.device):
            if not features:
                return Output(network(batch.inputs).float())
            logits, taken = logits_and_features(network, batch.inputs)
        return Output(logits.float(), taken.float())

    def of_split(self, split: str, inputs: Inputs, ranks: Ranks = ALONE) -> Tensor:
        """Returns the teacher's logits [N, C] of a whole split, not augmented, on the device.

        Args:
            ranks: the processes that all ask, and divide the split.

        Raises:
            UserError: the teacher is a table alone, which lacks the split.
        """
        if split in self._splits:
            return self._splits[split].to(self._device)
        return ranks.predict_logits(self.network(), inputs, device=self._device)

    def network(self) -> nn.Module:
        """Returns the network on the device, in eval mode.

        It is put into eval mode for every batch. It is no submodule of a trained module, so that no
        call of `train()` makes its batch normalisation learn.

        Raises:
            UserError: the teacher is only a table.
        """
        if self._network is None:
            if self._load is None:
                raise UserError(
                    "the teacher is a table of logits and cannot serve other inputs; "
                    "allowed: a teacher that is a network, or a method that needs logits alone"
                )
            self._network = self._load().to(self._device)
        return self._network.eval()


@torch.no_grad()
def view_logits(
    model: nn.Module,
    images: Tensor,
    augmentation: AugmentationConfig,
    *,
    device: torch.device,
    batch_size: int = 256,
    ranks: Ranks = ALONE,
) -> Iterator[Tensor]:
    """Yields the teacher's logits of all images, view by view: float32 [N, C] on the CPU.

    Args:
        model: takes raw inputs.
        images: [N, C, H, W], not yet padded.
        batch_size: rows at a time.
        ranks: the processes that all ask, and divide the images.
    """
    padding, count = augmentation.crop_padding, len(images)
    images = images[ranks.share(count)]
    padded = pad_images(images.to(device), padding).permute(0, 2, 3, 1).contiguous()
    for view in range(view_count(augmentation)):
        parts = []
        for rows in torch.split(torch.arange(len(images), device=device), batch_size):
            changes = view_changes(view, len(rows), augmentation, device)
            inputs = crop_and_flip(padded, rows, changes, padding)
            parts.append(predict_logits(model, inputs, device=device, batch_size=batch_size).cpu())
        yield ranks.whole(torch.cat(parts), count)
