"""Halving by maximum against torch's own pooling: the same values and the same gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdplatform.models.pooling import halve_by_maximum


def maps_with_ties(
    shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format
) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    # Few values, so that many windows hold their maximum more than once.
    drawn = torch.randint(-2, 3, shape, generator=generator).to(dtype)
    return drawn.contiguous(memory_format=layout).requires_grad_()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(28, 28), (7, 10), (4, 5)])
def test_values_and_gradients_are_those_of_max_pool2d(
    size: tuple[int, int], dtype: torch.dtype, layout: torch.memory_format
) -> None:
    maps = maps_with_ties((3, 6, *size), dtype, layout)
    expected_input = maps.detach().clone().requires_grad_()
    expected = F.max_pool2d(expected_input, 2)
    weights = torch.arange(1, expected.numel() + 1).view_as(expected).to(dtype)
    halved = halve_by_maximum(maps)
    (expected * weights).sum().backward()
    (halved * weights).sum().backward()
    assert torch.equal(halved, expected)
    assert maps.grad is not None
    assert expected_input.grad is not None
    assert torch.equal(maps.grad, expected_input.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_gradients_the_values_are_the_same(dtype: torch.dtype) -> None:
    maps = maps_with_ties((2, 3, 7, 6), dtype, torch.channels_last).detach()
    assert torch.equal(halve_by_maximum(maps), F.max_pool2d(maps, 2))


def test_it_is_part_of_an_exported_graph() -> None:
    class Halving(torch.nn.Module):
        def forward(self, maps: Tensor) -> Tensor:
            return halve_by_maximum(maps)

    maps = torch.randn(2, 3, 6, 6)
    exported = torch.export.export(Halving(), (maps,))
    assert torch.equal(exported.module()(maps), F.max_pool2d(maps, 2))
