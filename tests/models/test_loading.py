from collections.abc import Callable

import pytest
import torch
from torch import nn

from kdplatform.errors import UserError
from kdplatform.models.loading import for_classes, load_weights

Change = Callable[[torch.Tensor], torch.Tensor]


def network(classes: int = 3, width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(5, width), nn.BatchNorm1d(width), nn.Linear(width, classes))


def load(target: nn.Module, state: dict[str, torch.Tensor], *, head_may_differ: bool) -> None:
    load_weights(target, state, source="given.pt", head_may_differ=head_may_differ)


@pytest.mark.parametrize("head_may_differ", [True, False])
def test_fitting_weights_are_taken_whole(head_may_differ: bool) -> None:
    source, target = network(), network()
    load(target, source.state_dict(), head_may_differ=head_may_differ)
    for name, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor)


def test_a_head_for_other_classes_stays_new(capsys: pytest.CaptureFixture[str]) -> None:
    source, target = network(classes=7), network(classes=3)
    head = target.state_dict()["2.weight"].clone()
    load(target, source.state_dict(), head_may_differ=True)
    assert torch.equal(target.state_dict()["2.weight"], head)
    assert torch.equal(target.state_dict()["0.weight"], source.state_dict()["0.weight"])
    assert "the head is new" in capsys.readouterr().err


def test_a_head_for_other_classes_is_refused_where_it_must_fit() -> None:
    with pytest.raises(UserError, match=r"2 have other shapes \(2.weight \(7, 4\) instead of \(3,"):
        load(network(classes=3), network(classes=7).state_dict(), head_may_differ=False)


def test_other_shapes_below_the_head_are_refused() -> None:
    with pytest.raises(UserError, match=r"weights='given.pt' do not fit: .*0\.weight \(8, 5\)"):
        load(network(), network(width=8).state_dict(), head_may_differ=True)


def test_missing_and_unknown_weights_are_named() -> None:
    state = network().state_dict()
    state["other.weight"] = state.pop("0.weight")
    with pytest.raises(
        UserError, match=r"1 are missing \(0\.weight\), 1 are unknown \(other\.weight\)"
    ):
        load(network(), state, head_may_differ=True)


def test_old_files_without_batch_counters_fit() -> None:
    state = network().state_dict()
    del state["1.num_batches_tracked"]
    load(network(), state, head_may_differ=False)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value: float) -> None:
    state = network().state_dict()
    state["0.weight"][2, 3] = value
    with pytest.raises(
        UserError, match=r"'given\.pt': 1 of the 20 numbers of 0\.weight are NaN or infinite"
    ):
        load(network(), state, head_may_differ=True)


def test_weights_too_large_for_the_networks_precision_are_not_finite() -> None:
    state = network().state_dict()
    state["0.weight"] = torch.full((4, 5), 1e300, dtype=torch.float64)
    with pytest.raises(UserError, match=r"20 of the 20 numbers of 0\.weight"):
        load(network(), state, head_may_differ=True)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("quantised", lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)),
        ("integer", lambda t: t.to(torch.int8)),
        ("complex", lambda t: t.to(torch.complex64)),
        ("sparse", lambda t: t.to_sparse()),
        ("without values", lambda t: t.to("meta")),
    ],
)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["0.weight", "2.weight"])
def test_tensors_of_another_kind_are_refused(kind: str, change: Change, name: str) -> None:
    state = network().state_dict()
    state[name] = change(state[name])
    with pytest.raises(UserError, match=rf"1 are of other kinds \({name} {kind} instead of float"):
        load(network(), state, head_may_differ=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted(dtype: torch.dtype) -> None:
    source, target = network(), network()
    load(target, {n: t.to(dtype) for n, t in source.state_dict().items()}, head_may_differ=False)
    torch.testing.assert_close(target[0].weight, source[0].weight, atol=0.01, rtol=0.01)
    assert target[0].weight.dtype == torch.float32


GIVEN, WANTED = ("cat", "dog", "owl"), ("owl", "cat", "dog")


def head_for(wanted: tuple[str, ...], *, head_may_differ: bool) -> nn.Module:
    """Loads a network for GIVEN's classes into one for others; returns that one."""
    target = network()
    state = network().state_dict()
    state["2.weight"] = torch.arange(3.0)[:, None].expand(3, 4)
    state["2.bias"] = torch.arange(3.0)
    named = {"source": "given.pt", "head_may_differ": head_may_differ}
    load_weights(target, for_classes(target, state, GIVEN, wanted, **named), **named)
    return target


@pytest.mark.parametrize("head_may_differ", [True, False])
def test_outputs_follow_the_names_of_their_classes(
    head_may_differ: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    target = head_for(WANTED, head_may_differ=head_may_differ)
    assert target[2].bias.tolist() == [2.0, 0.0, 1.0]
    assert target[2].weight[:, 0].tolist() == [2.0, 0.0, 1.0]
    [line] = capsys.readouterr().err.splitlines()
    assert "another order (cat, dog, owl)" in line
    assert "the dataset's (owl, cat, dog)" in line


def test_equal_names_are_no_news(capsys: pytest.CaptureFixture[str]) -> None:
    assert head_for(GIVEN, head_may_differ=False)[2].bias.tolist() == [0.0, 1.0, 2.0]
    assert capsys.readouterr().err == ""


def test_as_many_other_classes_get_a_new_head_or_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = head_for(("car", "cat", "dog"), head_may_differ=True)
    assert target[2].bias.tolist() != [0.0, 1.0, 2.0]
    assert "the head is new, for other classes" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"are for the classes cat, dog, owl; .* has car, cat, dog"):
        head_for(("car", "cat", "dog"), head_may_differ=False)
