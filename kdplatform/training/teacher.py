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
        logits: floating point; row i belongs to example i of the training split. [N, C] for inputs
            that never change. [N, views, C] for augmented inputs, with views numbered as in
            `batches.view_numbers`. It may be a file mapped into memory, of which only the batch's
            logits are read.
        places: int64 [N], the row of `logits` for each example, if examples share inputs; None:
            each has its own row.
    """

    def __init__(self, logits: Tensor, places: Tensor | None = None) -> None:
        self._logits, self._places = logits.detach(), places

    def __call__(self, batch: Batch) -> Tensor:
        """Looks up the batch's logits: float32 [B, C]."""
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
    """Returns the teacher's output for a batch.

    The tables are used only for inputs that the loop made. For inputs that a method replaced or
    changed, and for features, the network is run.

    Args:
        table: logits of the training split; None if the network is always run.
        unlabeled: logits of the examples without labels; None as for `table`.
        splits: logits of whole splits without augmentation, by name; for other splits the network
            is run.
        network: returns the network, which takes raw inputs; called when it is first needed. None
            for a teacher that is only a table.
        precision: precision of the network's forward pass.
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
        """Returns whether a table is used instead of the network."""
        there = self._tables[batch.labelled] is not None
        return there and batch.inputs_are_the_loops and not features

    @torch.no_grad()
    def __call__(self, batch: Batch, *, features: bool = False) -> Output:
        """Returns the teacher's output for the batch; no gradient flows into it.

        A table gives all rows of the batch; the network gives those of the batch's inputs.
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
            ranks: the processes that all call this, and divide the split.

        Raises:
            UserError: the teacher is only a table, which lacks the split.
        """
        if split in self._splits:
            return self._splits[split].to(self._device)
        return ranks.predict_logits(self.network(), inputs, device=self._device)

    def network(self) -> nn.Module:
        """Returns the network on the device, in eval mode.

        It is put into eval mode for every batch. It is not a submodule of a trained module, so no
        call of `train()` can change its batch normalisation.

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
        batch_size: number of rows at a time.
        ranks: the processes that all call this, and divide the images.
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
