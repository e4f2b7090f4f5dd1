import pytest
import torch
from torch import nn

from kdplatform.errors import UserError
from kdplatform.models.loading import load_weights


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
