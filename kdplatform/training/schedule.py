"""Optimisers, and the learning rate as a function of the step."""

import math
from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from kdplatform.settings.schema import TrainingConfig


def learning_rate(config: TrainingConfig, step: int, steps_per_epoch: int) -> float:
    """Returns the learning rate of a step, counted from 0 over all epochs.

    The rate rises linearly over the epochs of `warmup` and reaches `learning_rate` at their last
    step. Then it depends on the schedule. With `constant` it stays. With `step` it is multiplied by
    `decay` after each epoch in `milestones`. With `cosine` it falls along half a cosine that would
    reach 0 one step after the last (Loshchilov and Hutter 2017, arXiv 1608.03983, without
    restarts).
    """
    warmup_steps = round(config.warmup * steps_per_epoch)
    if step < warmup_steps:
        return config.learning_rate * (step + 1) / warmup_steps
    if config.schedule == "cosine":
        total_steps = config.epochs * steps_per_epoch
        progress = (step - warmup_steps) / (total_steps - warmup_steps)
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
    # Only schedule=step has milestones. A constant rate is a step schedule without milestones.
    passed = sum(step >= milestone * steps_per_epoch for milestone in config.milestones)
    return config.learning_rate * config.decay**passed


def build_optimizer(parameters: Iterable[nn.Parameter], config: TrainingConfig) -> Optimizer:
    """Builds the optimiser of the parameters that require a gradient.

    Weight decay applies to all of them, including biases and normalisation, as in the recipe of the
    published results of the CIFAR pairs. Momentum is plain, not Nesterov's.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    # One pass over all parameters instead of several small operations for each.
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in trained)
    if config.optimizer == "adamw":
        return AdamW(
            trained, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused
        )
    return SGD(
        trained,
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=fused,
    )
