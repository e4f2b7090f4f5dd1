"""MovieLens: who rated which movie, as implicit feedback.

Harper and Konstan 2015, "The MovieLens Datasets", ACM TiiS 5(4); 100,000 or 1,000,209 ratings.
Recommendation is classification with many classes here: the input is a user, the label the movie
that the user took. A movie that is rated was taken, whatever the rating. Each user's last movie is
tested, the one before it is for validation, and all before are for training
(`split=leave_one_out`); or time is cut at two points for all users at once (`split=time`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kdplatform.columns import usable_attributes
from kdplatform.data import Dataset, Seen, Split
from kdplatform.data._movielens_files import (
    MovieLens,
    User,
    check_files,
    in_order,
    read_files,
)
from kdplatform.data._splits import Rows, assembled
from kdplatform.errors import UserError
from kdplatform.lazy import pandas as pd
from kdplatform.lazy import torch
from kdplatform.progress import say
from kdplatform.settings.schema import DatasetConfig
from kdplatform.strata import strata_by_frequency, stratum_name

USER, POPULARITY = "user", "popularity"
KNOWN_ATTRIBUTES = (*User._fields, POPULARITY)
_LEAST_OF_A_USER = 3
_MOST_NAMED = 3


class Config(DatasetConfig):
    """Which edition, which ratings count, and how they are split."""

    name: Literal["movielens"] = Field("movielens", description="dataset")
    root: str = Field(
        "", description="folder with the official files or RecBole's; empty: downloaded"
    )
    edition: Literal["100k", "1m"] = Field(
        "100k", description="edition that root holds, or that is downloaded"
    )
    least_rating: float = Field(
        0.0, ge=0, le=5, description="lower ratings are left out; 0: every rated movie was taken"
    )
    split: Literal["leave_one_out", "time"] = Field(
        "leave_one_out",
        description="leave_one_out: each user's last two movies are held out; time: all ratings "
        "are cut at two points in time",
    )
    val_fraction: float = Field(
        0.1, ge=0.01, le=0.4, description="split=time: share of all ratings for validation"
    )
    test_fraction: float = Field(
        0.1, ge=0.01, le=0.4, description="split=time: share of all ratings for the test"
    )
    popularity_groups: int = Field(
        2,
        ge=2,
        le=20,
        description="number of strata of movies, with about equally many training ratings",
    )
    seed: int = Field(0, ge=0, description="seed that orders a user's ratings of the same second")


def check(config: Config) -> None:
    """Checks that the user's folder holds the lists, and that each field means something here."""
    for name, value, neutral in (
        ("unlabeled_fraction", config.unlabeled_fraction, 0),
        ("imbalance", config.imbalance, 1),
    ):
        if value != neutral:
            raise UserError(
                f"dataset.{name}={value:g} is not allowed with dataset.name='movielens': a label "
                "is an interaction, and movies are as unequal as they are; allowed: "
                f"{neutral}"
            )
    if config.root:
        check_files(config.root, config.edition)


def load(config: Config, folder: Path) -> Dataset:
    """Loads interactions: inputs are numbers of users, int64 [N, 1], labels are movies.

    Ids count through the interactions in the order of users and movies. Columns are `user`, the
    user's id in the files, and the attributes: those of the user, and `popularity`, the stratum of
    the movie by its interactions in training, `1 of 2` being the most popular.

    Raises:
        UserError: files are missing or damaged, or too few users have movies; says which.
        MachineError: the archive cannot be downloaded.
    """
    read = read_files(config.root, config.edition, folder / "movielens")
    taken = _Taken.of(config, read)
    rows, items = _warm(config, taken, _parts(config, taken))
    labels = np.full(len(taken.item_ids), -1, dtype=np.int64)
    labels[items] = np.arange(len(items))
    counts = np.bincount(labels[taken.items[rows["train"]]], minlength=len(items))
    users = np.unique(taken.users[rows["train"]])
    number = np.full(len(taken.user_ids), -1, dtype=np.int64)
    number[users] = np.arange(len(users))
    chosen = np.sort(np.concatenate(list(rows.values())))
    columns = _columns(config, taken, read, chosen, labels, counts)
    at = {name: np.searchsorted(chosen, own) for name, own in rows.items()}
    test_labels = labels[taken.items[rows["test"]]]
    attributes = usable_attributes(
        columns.iloc[at["test"]], test_labels, KNOWN_ATTRIBUTES, config.name
    )
    examples = Split(
        torch.from_numpy(number[taken.users[chosen]]).unsqueeze(1),
        torch.from_numpy(labels[taken.items[chosen]]),
        chosen,
        columns[[USER, *attributes]],
    )
    dataset = assembled(
        config,
        _digest(taken, read),
        examples,
        at,
        class_names=_class_names([taken.item_ids[item] for item in items], read.titles),
        attributes=attributes,
    )
    return _with_seen(dataset, taken, rows, number, labels)


@dataclass(frozen=True)
class _Taken:
    """Interactions in the order of users and movies.

    Attributes:
        users: int64 [N], places in `user_ids`.
        items: int64 [N], places in `item_ids`.
        times: int64 [N], in seconds.
        places: int64 [N], how many movies the user took before, ties of time being broken by lot.
        sizes: int64 [users], movies of each user.
    """

    user_ids: Sequence[str]
    item_ids: Sequence[str]
    users: Rows
    items: Rows
    times: Rows
    places: Rows
    sizes: Rows

    @classmethod
    def of(cls, config: Config, read: MovieLens) -> _Taken:
        kept = read.ratings >= config.least_rating
        if lower := int((~kept).sum()):
            say(f"movielens: left out: {lower:,} ratings below {config.least_rating:g}")
        if not kept.any():
            raise UserError(
                f"dataset.least_rating={config.least_rating:g} leaves no rating; allowed: a lower "
                "one"
            )
        names = [
            [name for name, own in zip(column, kept, strict=True) if own]
            for column in (read.user_ids, read.item_ids)
        ]
        user_ids, item_ids = (in_order(set(own)) for own in names)
        users, items = (
            pd.Index(ids).get_indexer(pd.Index(own)).astype(np.int64)
            for ids, own in zip((user_ids, item_ids), names, strict=True)
        )
        times = read.times[kept]
        order = np.lexsort((items, users))
        users, items, times = users[order], items[order], times[order]
        lot = np.random.default_rng(config.seed).permutation(len(users))
        by_time = np.lexsort((lot, times, users))
        sizes = np.bincount(users)
        starts = np.cumsum(sizes) - sizes
        places = np.empty_like(users)
        places[by_time] = np.arange(len(users)) - starts[users[by_time]]
        return cls(user_ids, item_ids, users, items, times, places, sizes)


def _parts(config: Config, taken: _Taken) -> NDArray[np.int64]:
    """Returns the part of each interaction: 0 training, 1 validation, 2 test, -1 none. [N]."""
    if config.split == "leave_one_out":
        from_last = taken.sizes[taken.users] - 1 - taken.places
        enough = taken.sizes[taken.users] >= _LEAST_OF_A_USER
        if few := int((taken.sizes < _LEAST_OF_A_USER).sum()):
            say(
                f"movielens: {few} users have fewer than {_LEAST_OF_A_USER} movies, which are all "
                "trained on"
            )
        return np.where(enough & (from_last < 2), 2 - from_last, 0)
    ends = 1 - config.test_fraction - config.val_fraction, 1 - config.test_fraction
    first, second = np.quantile(taken.times, ends, method="lower")
    return np.where(taken.times >= second, 2, np.where(taken.times >= first, 1, 0))


def _warm(
    config: Config, taken: _Taken, parts: NDArray[np.int64]
) -> tuple[dict[str, Rows], NDArray[np.int64]]:
    """Returns the rows of the splits, and the movies that training has; says what is cold.

    Held out is a user's first interaction of each part with a movie that training has, so that
    every user counts once.
    """
    trained = parts == 0
    items, users = np.unique(taken.items[trained]), np.unique(taken.users[trained])
    rows = {"train": np.flatnonzero(trained)}
    warm_user, warm_item = np.isin(taken.users, users), np.isin(taken.items, items)
    cold = np.setdiff1d(taken.items, items)
    _say_cold("movies that training lacks", [taken.item_ids[item] for item in cold])
    strangers = np.setdiff1d(taken.users, users)
    _say_cold("users that training lacks", [taken.user_ids[user] for user in strangers])
    later = 0
    for part, name in ((1, "val"), (2, "test")):
        own = np.flatnonzero((parts == part) & warm_user & warm_item)
        own = own[np.lexsort((taken.places[own], taken.users[own]))]
        _, first = np.unique(taken.users[own], return_index=True)
        later += len(own) - len(first)
        rows[name] = np.sort(own[first])
        if not len(first):
            raise UserError(
                f"dataset.split={config.split!r} leaves no user to {name}; allowed: data in which "
                f"users have at least {_LEAST_OF_A_USER} movies, or other fractions"
            )
    if later:
        say(f"movielens: left out: {later:,} later held-out ratings of a user in one split")
    return rows, items


def _say_cold(what: str, names: Sequence[str]) -> None:
    if names:
        more = ", ..." if len(names) > _MOST_NAMED else ""
        say(
            f"movielens: left out: {len(names)} {what} (ids {', '.join(names[:_MOST_NAMED])}{more})"
        )


def _columns(
    config: Config,
    taken: _Taken,
    read: MovieLens,
    rows: Rows,
    labels: Rows,
    counts: NDArray[np.int64],
) -> pd.DataFrame:
    """Returns the columns of these interactions.

    Args:
        labels: the class of each movie.
        counts: training interactions of each class.
    """
    strata = strata_by_frequency(counts.tolist(), config.popularity_groups)
    names = np.empty(len(counts), dtype=object)
    for place, own in enumerate(strata):
        names[own] = stratum_name(place, len(strata))
    of_users = [read.users[taken.user_ids[user]] for user in taken.users[rows]]
    frame = pd.DataFrame(of_users, columns=list(User._fields), dtype=object)
    frame.insert(0, USER, [taken.user_ids[user] for user in taken.users[rows]])
    return frame.assign(**{POPULARITY: names[labels[taken.items[rows]]]})


def _class_names(ids: Sequence[str], titles: Mapping[str, str]) -> list[str]:
    """Returns the titles of movies; with their id where two movies have one title."""
    own = [titles[name] for name in ids]
    count = Counter(own)
    return [
        f"{title} #{name}" if count[title] > 1 else title
        for name, title in zip(ids, own, strict=True)
    ]


def _digest(taken: _Taken, read: MovieLens) -> str:
    """Returns the SHA-256 of interactions and users, the same for each layout of the files."""
    digest = hashlib.sha256()
    for own in (taken.users, taken.items, taken.times):
        digest.update(own.astype("<i8").tobytes())
    digest.update("\n".join(taken.item_ids).encode())
    for name in taken.user_ids:
        digest.update(("\t".join([name, *read.users[name]]) + "\n").encode())
    return digest.hexdigest()


def _with_seen(
    dataset: Dataset, taken: _Taken, rows: Mapping[str, Rows], number: Rows, labels: Rows
) -> Dataset:
    """Returns the dataset whose splits know what their users took before.

    That is all of training, and before a held-out movie whatever the user took earlier.

    Args:
        number: the input of each user, -1 for one that training lacks.
        labels: the class of each movie, likewise.
    """
    shape = (int(number.max()) + 1, len(dataset.class_names))
    tables = {}
    for name in ("val", "test"):
        limit = np.full(len(taken.user_ids), -1, dtype=np.int64)
        limit[taken.users[rows[name]]] = taken.places[rows[name]]
        before = taken.places < limit[taken.users]
        before[rows["train"]] = True
        before &= (number[taken.users] >= 0) & (labels[taken.items] >= 0)
        table = torch.zeros(shape, dtype=torch.bool)
        table[number[taken.users[before]], labels[taken.items[before]]] = True
        tables[name] = table
    trained = torch.zeros(shape, dtype=torch.bool)
    trained[number[taken.users[rows["train"]]], labels[taken.items[rows["train"]]]] = True
    tables["train"] = trained

    def knowing(name: str, split: Split) -> Split:
        users = torch.from_numpy(number[taken.users[rows[name]]])
        return replace(split, seen=Seen(users, tables[name]))

    return replace(
        dataset,
        train=knowing("train", dataset.train),
        val=knowing("val", dataset.val),
        test=knowing("test", dataset.test),
    )
