"""Halves feature maps by their maximum, on a CPU faster than torch's own pooling in bfloat16.

For few channels torch's kernel is the slowest part of a small network. The table is for [128, 6,
28, 28] in bfloat16, channels last, one thread of a Zen 4 EPYC (torch 2.15). The results are equal.

    torch's pooling in bfloat16      3.3 ms forward, 5.0 ms with its gradient
    the maximum of four slices       0.5 ms forward, 10 ms with its gradient
    pooling in float32               3.0 ms with its gradient
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def halve_by_maximum(maps: Tensor) -> Tensor:
    """Returns the maximum of every 2 x 2 window: [B, C, H, W] to [B, C, H // 2, W // 2]."""
    if maps.device.type != "cpu":
        return F.max_pool2d(maps, 2)
    if torch.is_grad_enabled() and maps.requires_grad:
        return F.max_pool2d(maps.float(), 2).to(maps.dtype)
    height, width = maps.shape[2] // 2 * 2, maps.shape[3] // 2 * 2
    upper, lower = maps[:, :, :height:2, :width], maps[:, :, 1:height:2, :width]
    rows = torch.maximum(upper, lower)
    return torch.maximum(rows[..., ::2], rows[..., 1::2])
