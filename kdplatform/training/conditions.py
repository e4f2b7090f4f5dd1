"""A model's outputs for a split under a condition: an attack on it, or a corruption of images."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdplatform.data import Split
from kdplatform.methods._attacks import in_eval, iterates, pixels
from kdplatform.settings.schema import AttackConfig, ConditionConfig
from kdplatform.training.corruptions import corrupted

# Random numbers are drawn per batch, so another size would give other numbers.
_BATCH = 256


@dataclass(frozen=True)
class Answers:
    """A model's outputs for a split under a condition.

    Attributes:
        logits: float32 [N, C], on the CPU.
        without_slope: among the examples that were right before an attack, the share that it could
            not move. The gradient of the model's loss vanishes there, so the attack says nothing
            about them. 0 for a corruption, and if no example was right.
    """

    logits: Tensor
    without_slope: float = 0.0


def answers_under(
    model: nn.Module, split: Split, condition: ConditionConfig, device: torch.device
) -> Answers:
    """Returns a model's outputs under a condition, in eval mode and fp32.

    Under equal conditions the noise is the same for every model, and attacks begin at the same
    images. In an attack the example's worst step counts, and the unchanged image is among the
    steps. A wrong prediction is worse than a right one; among equals the higher cross entropy is
    worse. More steps therefore never raise accuracy.

    Args:
        model: takes raw inputs, as bytes and as fractions; it is moved to the device and not
            changed.
        split: its inputs are images.
    """
    generator = torch.Generator().manual_seed(condition.seed)
    model.to(device)
    attack, logits, still, right = condition.as_attack, [], 0, 0
    with in_eval(model):
        for images, labels in _batches(split, device):
            if attack is None:
                assert condition.corruption is not None
                changed = corrupted(images, condition.corruption, condition.severity, generator)
                with torch.no_grad():
                    logits.append(model(changed).float().cpu())
                continue
            worst, unmoved, right_first = _attacked(model, images, labels, attack, generator)
            logits.append(worst.cpu())
            still += unmoved
            right += right_first
    return Answers(torch.cat(logits), still / max(1, right))


def _batches(split: Split, device: torch.device) -> Iterable[tuple[Tensor, Tensor]]:
    steps = torch.split(torch.arange(len(split)), _BATCH)
    if isinstance(split.inputs, Tensor):
        inputs: Iterable[Tensor] = torch.split(split.inputs, _BATCH)
    else:
        inputs = split.inputs.batches(steps, pinned=device.type == "cuda")
    for rows, images in zip(steps, inputs, strict=True):
        yield images.to(device), split.labels[rows].to(device)


def _attacked(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: AttackConfig,
    generator: torch.Generator,
) -> tuple[Tensor, int, int]:
    """Returns the logits of each image's worst step.

    Returns also how many right images no step moved, and how many images were right.
    """

    def loss(found: Tensor) -> Tensor:
        return F.cross_entropy(model(found).float(), labels, reduction="none")

    with torch.no_grad():
        worst = model(images).float()
    if attack.eps == 0:
        return worst, 0, 0
    highest = F.cross_entropy(worst, labels, reduction="none")
    wrong = wrong_first = worst.argmax(dim=1) != labels
    first, last = None, None
    for found in iterates(pixels(images), loss, attack, generator):
        first, last = (found if first is None else first), found
        with torch.no_grad():
            logits = model(found).float()
        raised, fooled = (
            F.cross_entropy(logits, labels, reduction="none"),
            logits.argmax(1) != labels,
        )
        better = (fooled & ~wrong) | ((fooled == wrong) & (raised > highest))
        worst = torch.where(better[:, None], logits, worst)
        highest = torch.where(better, raised, highest)
        wrong = wrong | fooled
    assert first is not None
    assert last is not None
    unmoved = (last == first).flatten(1).all(dim=1) & ~wrong_first
    return worst, int(unmoved.sum()), int((~wrong_first).sum())
