"""MovieLens in its three layouts: what is trained on, what is held out, what is refused."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.movielens_files import Ratings, write_1m, write_100k, write_atomic, zipf_ratings
from helpers.refusals import assert_refused, refusal_of

from kdplatform.data import OUT_OF_THE_RUNNING, Dataset, Split, check_dataset, load_dataset
from kdplatform.data._movielens_files import ARCHIVES
from kdplatform.data._sources import Archive
from kdplatform.data.movielens import Config
from kdplatform.downloads import md5_of
from kdplatform.predictions import Predictions

SMALL = zipf_ratings()
LAYOUTS: dict[str, tuple[Callable[[Path, Ratings], Path], str]] = {
    "official 100K": (write_100k, "100k"),
    "official 1M": (write_1m, "1m"),
    "RecBole": (write_atomic, "100k"),
}


def loaded(root: Path, content: Ratings = SMALL, **fields: Any) -> Dataset:
    """Returns the dataset of RecBole's files with this content."""
    config = Config(root=str(write_atomic(root / "ml", content)), **fields)
    return load_dataset(config, root / "data")


def interactions(split: Split, dataset: Dataset) -> set[tuple[str, str]]:
    users = split.columns["user"]
    titles = [dataset.class_names[label] for label in split.labels]
    return set(zip(users, titles, strict=True))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layouts_hold_the_same(layout: str, tmp_path: Path) -> None:
    write, edition = LAYOUTS[layout]
    expected = loaded(tmp_path)
    config = Config(root=str(write(tmp_path / "other", SMALL)), edition=edition)
    check_dataset(config)
    dataset = load_dataset(config, tmp_path / "data")
    assert dataset.class_names == expected.class_names
    for name, split in expected.splits().items():
        own = dataset.splits()[name]
        assert torch.equal(own.inputs, split.inputs)
        assert torch.equal(own.labels, split.labels)
        assert own.columns.equals(split.columns)
    # The edition is a field of the configuration, and nothing else differs.
    assert (dataset.digest == expected.digest) == (edition == "100k")


def test_a_users_last_movie_is_tested_and_the_one_before_is_for_validation(tmp_path: Path) -> None:
    content = Ratings(
        ratings=(
            *((1, 1, 3, 10), (1, 2, 3, 30), (1, 3, 5, 20), (1, 4, 1, 40)),
            *((2, 4, 3, 2), (2, 3, 3, 3), (2, 2, 3, 1), (2, 1, 3, 4)),
            *((3, 1, 3, 1), (3, 2, 3, 2)),
            *((4, 4, 3, 1), (4, 2, 3, 2), (4, 1, 3, 3)),
        ),
        users=((1, "M", 17, 0), (2, "F", 56, 12), (3, "F", 18, 0), (4, "M", 17, 0)),
        titles={1: "One (1990)", 2: "Two (1990)", 3: "Three (1990)", 4: "Four (1990)"},
    )
    dataset = loaded(tmp_path, content)
    second = {("1", "Two (1990)"), ("2", "Three (1990)"), ("4", "Two (1990)")}
    assert interactions(dataset.val, dataset) == second
    last = {("1", "Four (1990)"), ("2", "One (1990)"), ("4", "One (1990)")}
    assert interactions(dataset.test, dataset) == last
    assert len(dataset.train) == 7
    groups = dataset.test.columns.set_index("user").loc[["1", "2"]]
    assert groups["age_group"].tolist() == ["under 18", "56 and over"]
    assert groups["gender"].tolist() == ["men", "women"]


def test_ids_and_users_are_dense_and_every_class_is_trained_on(tmp_path: Path) -> None:
    dataset = loaded(tmp_path)
    ids = np.concatenate([split.ids for split in dataset.splits().values()])
    assert len(set(ids)) == len(ids)
    users = dataset.train.inputs.squeeze(1)
    assert sorted(set(users.tolist())) == list(range(40))
    assert dataset.train.labels.bincount(minlength=len(dataset.class_names)).min() == 1


def test_no_split_has_an_interaction_of_another(tmp_path: Path) -> None:
    dataset = loaded(tmp_path)
    sets = [interactions(split, dataset) for split in dataset.splits().values()]
    assert len(set.union(*sets)) == sum(map(len, sets))


@pytest.mark.parametrize("split", ["leave_one_out", "time"])
def test_what_a_user_took_before_is_out_of_the_running_and_nothing_else(
    split: str, tmp_path: Path
) -> None:
    dataset = loaded(tmp_path, split=split)
    when = {
        (str(user), f"Film {item} (19{item % 100:02})"): t for user, item, _, t in SMALL.ratings
    }
    for name in ("val", "test"):
        own = dataset.splits()[name]
        logits = torch.randn(len(own), len(dataset.class_names))
        table = Predictions.from_logits(own, logits)
        assert table.logits is not None
        for row, user in enumerate(own.columns["user"]):
            now = when[user, dataset.class_names[own.labels[row]]]
            out = {
                dataset.class_names[place]
                for place in np.flatnonzero(table.logits[row] == OUT_OF_THE_RUNNING)
            }
            earlier = {title for (who, title), time in when.items() if who == user and time < now}
            assert out == earlier & set(dataset.class_names)


def test_time_is_cut_for_all_users_at_once(tmp_path: Path) -> None:
    dataset = loaded(tmp_path, split="time", val_fraction=0.2, test_fraction=0.2)
    when = {
        (str(user), f"Film {item} (19{item % 100:02})"): t for user, item, _, t in SMALL.ratings
    }
    times = [
        [when[pair] for pair in interactions(split, dataset)] for split in dataset.splits().values()
    ]
    assert max(times[0]) < min(times[1])
    assert max(times[1]) < min(times[2])
    assert dataset.test.columns["user"].is_unique


def test_equal_times_are_ordered_by_the_seed_alone(tmp_path: Path) -> None:
    flat = Ratings(tuple((u, i, r, 5) for u, i, r, _ in SMALL.ratings), SMALL.users, SMALL.titles)
    backwards = Ratings(flat.ratings[::-1], SMALL.users, SMALL.titles)
    one = loaded(tmp_path / "a", flat)
    assert loaded(tmp_path / "b", backwards).digest == one.digest
    assert loaded(tmp_path / "c", flat, seed=1).digest != one.digest


@pytest.mark.parametrize("groups", [2, 3])
def test_popularity_cuts_training_into_equal_shares(groups: int, tmp_path: Path) -> None:
    dataset = loaded(tmp_path, popularity_groups=groups)
    counts = dataset.train.labels.bincount()
    sizes = dataset.train.columns["popularity"].value_counts()
    assert sorted(sizes.index) == [f"{place + 1} of {groups}" for place in range(groups)]
    # As long as a stratum has no share of its own by a single movie, it is off by one at most.
    assert abs(sizes - len(dataset.train) / groups).max() <= counts.max() * (groups - 1)
    frame = dataset.train.columns.assign(count=counts[dataset.train.labels].numpy())
    ranges = frame.groupby("popularity")["count"].agg(["min", "max"])
    assert (ranges["min"].to_numpy()[:-1] >= ranges["max"].to_numpy()[1:]).all()


def test_movies_and_users_that_training_lacks_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = SMALL.with_ratings((1, 99, 3, 999_999_999))
    content.titles[99] = "Late (1999)"
    late = Ratings(content.ratings, (*content.users, (77, "M", 30, 0)), content.titles)
    dataset = loaded(tmp_path, late)
    said = capsys.readouterr().err
    del content.titles[99]
    assert "Late (1999)" not in dataset.class_names
    assert "movies that training lacks (ids " in said
    assert "1 users of ml.user without a rating (77)" in said
    assert "1" not in dataset.test.columns["user"].tolist()


def test_equal_titles_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    titles = {**SMALL.titles, 1: "Same (1990)", 2: "Same (1990)"}
    names = loaded(tmp_path, Ratings(SMALL.ratings, SMALL.users, titles)).class_names
    assert {"Same (1990) #1", "Same (1990) #2"} < set(names)


def test_low_ratings_are_left_out_where_that_is_asked(tmp_path: Path) -> None:
    kept = {(str(u), i) for u, i, rating, _ in SMALL.ratings if rating >= 3}
    dataset = loaded(tmp_path, least_rating=3)
    assert sum(map(len, dataset.splits().values())) <= len(kept)
    assert {user for user, _ in interactions(dataset.train, dataset)} <= {u for u, _ in kept}


def test_the_archive_is_unpacked_once_its_checksum_is_the_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_100k(tmp_path / "ml-100k", SMALL)
    packed = tmp_path / "root" / "ml-100k.zip"
    packed.parent.mkdir()
    with zipfile.ZipFile(packed, "w") as archive:
        for file in (tmp_path / "ml-100k").iterdir():
            archive.write(file, f"ml-100k/{file.name}")
    config = Config(root=str(packed.parent))
    assert_refused(load_dataset, config, "is not the published file", tmp_path / "data")
    published = ARCHIVES["100k"]
    own = Archive(published.url, published.name, md5_of(packed), published.folder)
    monkeypatch.setitem(ARCHIVES, "100k", own)
    assert load_dataset(config, tmp_path / "data").digest == loaded(tmp_path).digest


def test_bad_files_are_refused_in_a_line(tmp_path: Path) -> None:
    def refused(message: str, content: Ratings = SMALL) -> None:
        assert_refused(loaded, tmp_path, message, content)

    first, second = SMALL.ratings[:2]
    user, item = first[:2]
    refused(
        rf"1 pairs occur more than once \(user {user} and item {item}\)", SMALL.with_ratings(first)
    )
    refused("1 users are not in ml.user", SMALL.with_ratings((500, second[1], 3, 1)))
    refused("1 movies are not in ml.item", SMALL.with_ratings((1, 500, 3, 1)))
    users = (*SMALL.users, (SMALL.users[0][0], "F", 60, 0))
    again = Ratings(SMALL.ratings, users, SMALL.titles)
    refused(rf"1 of user_id occur more than once \({SMALL.users[0][0]}\)", again)
    one_each = Ratings(SMALL.ratings[:1], SMALL.users, SMALL.titles)
    refused("leaves no user to val", one_each)
    path = write_atomic(tmp_path / "ml", SMALL) / "ml.inter"
    lines = path.read_text().splitlines()
    config = Config(root=str(path.parent))

    def damaged(*own: str) -> str:
        path.write_text("\n".join(own))
        return refusal_of(load_dataset, config, tmp_path / "data")

    header = lines[0]
    assert "column 'mood' is unknown" in damaged(f"{header}\tmood:token", *lines[1:])
    assert "column 'user_id' is missing" in damaged(header.replace("user_id", "who"), *lines[1:])
    assert "line 2: 3 columns; allowed: 4" in damaged(header, "1\t2\t3", *lines[1:])
    assert "line 3: rating 'good' at '5'" in damaged(header, lines[1], "1\t77\tgood\t5")
    assert "line 2: rating '3' at '1e300'" in damaged(header, "1\t77\t3\t1e300")
    assert "no line of data" in damaged(header)
    path.with_suffix(".user").unlink()
    assert "lacks ml.user" in refusal_of(check_dataset, config)


def test_bad_fields_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    root = str(write_1m(tmp_path / "ml", SMALL))
    assert_refused(check_dataset, Config(root=root), "allowed: dataset.edition='1m'")
    own = Config(root=root, edition="1m")
    for fields in ({"imbalance": 2.0}, {"unlabeled_fraction": 0.5}):
        assert_refused(
            check_dataset, own.model_copy(update=fields), f"dataset.{next(iter(fields))}"
        )
