"""Pairs of classes, and the methods that learn from them, on data with users and without."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.given_logits import begun, evaluate, given_batch, given_run, random_logits
from helpers.movielens_files import write_atomic, zipf_ratings
from helpers.refusals import assert_refused
from scipy import stats
from torch import Tensor, nn

from kdplatform.data import Dataset, Seen, Split, load_dataset
from kdplatform.data.digits import Config as Digits
from kdplatform.data.movielens import Config as MovieLens
from kdplatform.methods import Batch, Output, build_method, method_config_class
from kdplatform.methods._pair_distillation import apportioned
from kdplatform.methods._pairs import Negatives, draw_pairs, draw_ranks, order_rows, ranking
from kdplatform.methods.bpr import Config as Bpr
from kdplatform.methods.rank_distillation import Config as RankDistillation
from kdplatform.methods.unkd import Config as UnKD
from kdplatform.methods.unkd import UnKD as UnKDMethod
from kdplatform.models import build_model
from kdplatform.roles import Role
from kdplatform.settings.schema import TrainingConfig
from kdplatform.strata import strata_by_frequency
from kdplatform.training import Teacher, TeacherTable, fit


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def users_run(teacher: Tensor, taken: Tensor, **config: Any) -> tuple[SimpleNamespace, Batch]:
    """Returns a run of users who took items, and a batch with each interaction.

    Args:
        teacher: logits of each user [users, items].
        taken: bool [users, items].
    """
    users, items = taken.nonzero(as_tuple=True)
    columns = pd.DataFrame(index=range(len(users)))
    split = Split(
        users.unsqueeze(1), items, np.arange(len(users)), columns, seen=Seen(users, taken)
    )
    run = given_run(teacher[users], teacher[users], **config)
    run.split, run.epoch = split, 0
    run.teacher = lambda batch, features=False: Output(teacher[batch.inputs.squeeze(1)])
    run.student = lambda inputs, features=False: Output(teacher[inputs.squeeze(1)])
    rows = torch.arange(len(users))
    return run, Batch(split.inputs, items, rows, rows)


def some_users(users: int = 30, items: int = 40, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Returns a teacher's logits [users, items], and what was taken: low numbers most often."""
    teacher = torch.randn(users, items, generator=generator(seed))
    chances = 0.6 / (1 + torch.arange(items) / 6)
    taken = torch.rand(users, items, generator=generator(seed + 1)) < chances
    taken[:, 0] = taken[0] = False
    taken[0, :], taken[1, 0] = True, True  # every item was taken by someone, and one took all
    taken[0, -5:] = False
    taken[2, -5:] = True
    return teacher, taken


def pairs_of(config: Any, teacher: Tensor, taken: Tensor) -> tuple[Tensor, Tensor, Any]:
    """Returns the pairs of each interaction that a method draws, and the method."""
    run, batch = users_run(teacher, taken)
    method: Any = begun(config, run)
    first, second = method._pairs(batch, run, teacher.shape[1])
    return first, second, method


# ---- ranks and pairs


def test_ranks_are_drawn_by_their_exponential_law() -> None:
    counts, scale = torch.full((200_000,), 50), 20.0
    first, second = draw_ranks(counts, scale, generator())
    assert (first != second).all()
    chance = np.exp(-(np.arange(50) + 1) / scale)
    chance /= chance.sum()
    # Of two draws that are not equal, each is r with a chance like p_r (1 - p_r).
    expected = chance * (1 - chance)
    expected *= len(counts) / expected.sum()
    for drawn in (first, second):
        assert stats.chisquare(np.bincount(drawn, minlength=50), expected).pvalue > 0.001


def test_two_candidates_are_always_a_pair_and_one_never() -> None:
    first, second = draw_ranks(torch.tensor([2, 1, 0]).repeat(1000, 1), 20.0, generator())
    assert (first != second).all(0).tolist() == [True, False, False]
    assert first.max() == 1


def test_candidates_stand_in_the_teachers_order() -> None:
    logits = torch.tensor([[1.0, 4.0, 3.0, 2.0, 4.0]])
    out = torch.tensor([[False, False, True, False, False]])
    ranked = ranking(logits, out, [[0, 1, 4], [2, 3]], most=2)
    assert ranked.counts.tolist() == [[2], [1]]
    assert ranked.classes[0, 0].tolist() == [1, 4]
    assert ranked.classes[1, 0, 0] == 3
    first, second = draw_pairs(ranked, [3, 2], 20.0, generator())
    assert first.tolist() == [[1, 1, 1, -1, -1]]
    assert second.tolist() == [[4, 4, 4, -1, -1]]


@pytest.mark.parametrize("config", [UnKD(strata=3), RankDistillation()])
def test_a_pair_is_of_two_unseen_items_of_one_stratum_in_the_teachers_order(config: Any) -> None:
    teacher, taken = some_users()
    first, second, method = pairs_of(config, teacher, taken)
    users, _ = taken.nonzero(as_tuple=True)
    assert first.shape == (len(users), 30)
    stratum = torch.empty(teacher.shape[1], dtype=torch.int64)
    for place, own in enumerate(method._strata):
        stratum[own] = place
    there = first >= 0
    assert torch.equal(there, second >= 0)
    # A stratum of popular items has users who took all of it but one.
    assert there.float().mean() > 0.6
    rows = users.unsqueeze(1).expand_as(first)[there]
    better, other = first[there], second[there]
    assert (better != other).all()
    assert not taken[rows, better].any()
    assert not taken[rows, other].any()
    assert (teacher[rows, better] > teacher[rows, other]).all()
    assert (stratum[better] == stratum[other]).all()
    assert len(method._strata) == (3 if config.method == "unkd" else 1)


def test_what_lifts_a_whole_stratum_changes_no_pair_of_unkd() -> None:
    teacher, taken = some_users()
    for config, equal in ((UnKD(), True), (RankDistillation(), False)):
        first, second, _ = pairs_of(config, teacher, taken)
        lifted = teacher.clone()
        lifted[:, strata_by_frequency(taken.sum(0).tolist(), 2)[0]] += 3.0
        other_first, other_second, _ = pairs_of(config, lifted, taken)
        assert (torch.equal(first, other_first) and torch.equal(second, other_second)) == equal


def test_one_stratum_is_rank_distillation_bit_for_bit() -> None:
    teacher, taken = some_users()
    run, batch = users_run(teacher, taken)
    run.generator = generator(5)
    one = begun(UnKD(strata=1), run).loss(batch, run)
    run.generator = generator(5)
    other = begun(RankDistillation(), run).loss(batch, run)
    assert torch.equal(one.rows, other.rows)
    logits = random_logits()
    apart = evaluate(UnKD(strata=1), *logits), evaluate(RankDistillation(), *logits)
    assert torch.equal(apart[0].rows, apart[1].rows)


def test_all_examples_of_a_user_share_the_pairs_of_an_epoch() -> None:
    teacher, taken = some_users()
    run, batch = users_run(teacher, taken)
    method: Any = begun(UnKD(), run)
    first, _ = method._pairs(batch, run, 40)
    users = run.split.seen.users
    for user in range(5):
        assert (first[users == user] == first[users == user][0]).all()
    assert torch.equal(first, method._pairs(batch, run, 40)[0])
    run.epoch = 1
    assert not torch.equal(first, method._pairs(batch, run, 40)[0])


def test_strata_get_their_shares_of_the_pairs() -> None:
    counts = [90, 10, 10, 10, 10, 10, 10, 10, 10, 10]
    strata = strata_by_frequency(counts, 2)
    assert [len(own) for own in strata] == [1, 9]
    equal, rare = (UnKDMethod(UnKD(popularity_power=power)) for power in (0.0, 1.0))
    assert equal.shares(counts, strata) == [0.5, 0.5]
    # r = (90 + 10) - (90, 10) = (10, 90), as shares .1 and .9.
    assert rare.shares(counts, strata) == pytest.approx([0.1, 0.9])
    assert apportioned(30, rare.shares(counts, strata)) == [3, 27]
    assert sum(apportioned(7, [1 / 3] * 3)) == 7


# ---- losses


def test_the_loss_of_pairs_is_softplus_of_the_margin() -> None:
    logits = torch.tensor([[2.0, 0.5, -1.0], [0.0, 0.0, 0.0]])
    pairs = torch.tensor([[0, 1], [0, -1]]), torch.tensor([[1, 2], [2, -1]])
    [rows] = order_rows(logits, pairs)
    softplus = nn.functional.softplus(torch.tensor([-1.5, -1.5, 0.0]))
    torch.testing.assert_close(rows, torch.stack([softplus[:2].mean(), softplus[2]]))
    [none] = order_rows(logits, (torch.full((2, 1), -1), torch.full((2, 1), -1)))
    assert none.tolist() == [0.0, 0.0]


def test_bpr_holds_the_label_against_every_other_class_alike() -> None:
    student, _, labels = random_logits(6, 5)
    found = evaluate(Bpr(negatives=1000), student, student, labels).rows
    margins = student - student.gather(1, labels.unsqueeze(1))
    others = torch.nn.functional.softplus(margins).sum(1) - np.log(2)
    torch.testing.assert_close(found, others / 4, rtol=0.1, atol=0.05)


def test_negatives_are_all_items_that_a_user_has_not_taken_equally_often() -> None:
    _, taken = some_users()
    run, batch = users_run(torch.zeros(30, 40), taken)
    drawn = Negatives(run.split).draw(batch, 40, 400, generator())
    users = run.split.seen.users
    for user in (0, 1, 7):
        own = drawn[users == user].flatten()
        free = (~taken[user]).nonzero().flatten()
        counts = torch.bincount(own, minlength=40)
        assert counts.sum() == counts[free].sum()
        assert stats.chisquare(counts[free]).pvalue > 0.001


def test_a_user_who_took_everything_has_no_negative_and_no_loss() -> None:
    taken = torch.tensor([[True, True, True], [True, False, False]])
    run, batch = users_run(torch.randn(2, 3), taken)
    loss = begun(Bpr(), run).loss(batch, run)
    assert loss.rows[:3].tolist() == [0.0, 0.0, 0.0]
    assert loss.rows[3] > 0
    loss = begun(RankDistillation(), run).loss(batch, run)
    assert loss.rows[:3].tolist() == [0.0, 0.0, 0.0]


def test_two_classes_are_refused_for_they_have_no_pair(tmp_path: Path) -> None:
    dataset = load_dataset(Digits(), tmp_path)
    two = Dataset(**{**vars(dataset), "class_names": ("a", "b")})
    assert_refused(build_method(UnKD()).check, two, "2 classes; allowed: at least 3")


# ---- in training


@pytest.mark.parametrize("model", ["matrix_factorization_4", "lightgcn_4"])
@pytest.mark.parametrize("name", ["bpr", "unkd", "rank_distillation", "kd"])
def test_users_learn_and_training_goes_on_bit_for_bit(
    name: str, model: str, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    config = MovieLens(root=str(write_atomic(tmp_path / "ml", zipf_ratings())))
    dataset = load_dataset(config, tmp_path / "data")
    _, places = dataset.train.distinct()
    network = build_model("matrix_factorization_10", dataset.facts())
    inputs, _ = dataset.train.distinct()
    assert isinstance(inputs, Tensor)
    table = network(inputs).detach()

    def trained(epochs: int, **saved: Any) -> tuple[dict[str, Tensor], list[float]]:
        torch.manual_seed(0)
        student = build_model(model, dataset.facts())
        result = fit(
            student,
            dataset.train,
            build_method(method_config_class(name)()),
            TrainingConfig(
                model=model, epochs=4, batch_size=64, optimizer="adamw", learning_rate=0.05
            ).model_copy(update={"epochs": epochs}),
            seed=0,
            role=Role.DISTILLED,
            device=torch.device("cpu"),
            teacher=Teacher(TeacherTable(table, places), None),
            validation=dataset.val,
            **saved,
        )
        return student.state_dict(), [record.train_loss for record in result.records]

    class StopError(Exception):
        pass

    def stop(record: Any) -> None:
        raise StopError

    saved = {"checkpoint": tmp_path / "checkpoint", "identity": "run"}
    whole, losses = trained(4)
    with pytest.raises(StopError):
        trained(4, on_epoch=stop, **saved)
    resumed, again = trained(4, **saved)
    assert losses == again
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert losses[-1] < losses[0]


def test_a_table_by_users_says_what_the_network_says(tmp_path: Path) -> None:
    config = MovieLens(root=str(write_atomic(tmp_path / "ml", zipf_ratings())))
    dataset = load_dataset(config, tmp_path / "data")
    network = build_model("lightgcn_4", dataset.facts())
    inputs, places = dataset.train.distinct()
    assert isinstance(inputs, Tensor)
    table = TeacherTable(network(inputs), places)
    rows = torch.tensor([5, 0, 200])
    batch = given_batch(dataset.train.labels[rows])
    batch = Batch(**{**vars(batch), "rows": rows})
    torch.testing.assert_close(table(batch), network(dataset.train.inputs[rows]))
