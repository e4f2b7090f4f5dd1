"""HateXplain: 20,148 posts of Twitter and Gab that three annotators each called hateful or not.

Mathew et al. 2021, "HateXplain: A Benchmark Dataset for Explainable Hate Speech Detection", arXiv
2012.10289; MIT licence. The label is that of at least two annotators; posts on which all three
differ are dropped. A post belongs to a community if at least two annotators say that it is about
it. It may belong to several, or to none, as most do. The official split is kept.

Not given by the paper on distillation and fairness: which communities make up gender and race, and
how posts about several of them are handled; both are fields here. The texts are offensive.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from kdplatform.columns import usable_attributes
from kdplatform.data import SEVERAL, Dataset, Split, Vocabulary
from kdplatform.data._hatexplain_files import (
    DIVISIONS,
    POSTS,
    Post,
    found_files,
    given_files,
    read_divisions,
    read_posts,
)
from kdplatform.data._splits import Rows, assembled, check_classes
from kdplatform.data._tokens import TRAINED, hub_tokenizer, padded, trained_tokenizer
from kdplatform.errors import UserError, unknown_name
from kdplatform.lazy import pandas as pd
from kdplatform.lazy import torch
from kdplatform.progress import say
from kdplatform.settings.schema import DatasetConfig, Names

CLASSES = {
    "two": {"normal": "normal", "offensive": "toxic", "hatespeech": "toxic"},
    "three": {"normal": "normal", "offensive": "offensive", "hatespeech": "hatespeech"},
}
ATTRIBUTES = ("gender", "race", "religion")
POST_ID = "post_id"
# What annotators tag posts with; small selections of the posts lack the rare ones.
KNOWN = frozenset(
    (
        *("African", "Arab", "Asian", "Bisexual", "Buddhism", "Caucasian", "Christian"),
        *("Disability", "Economic", "Heterosexual", "Hindu", "Hispanic", "Homosexual", "Indian"),
        *("Indigenous", "Islam", "Jewish", "Men", "Minority", "Nonreligious", "Other", "Refugee"),
        "Women",
    )
)


class Config(DatasetConfig):
    """Which classes, which communities make up an attribute, and how texts become numbers."""

    name: Literal["hatexplain"] = Field("hatexplain", description="dataset")
    root: str = Field(
        "", description=f"folder with {POSTS} and {DIVISIONS}; empty: they are downloaded"
    )
    classes: Literal["two", "three"] = Field(
        "two", description="two: normal, toxic (offensive or hateful); three: each by itself"
    )
    gender: Names = Field(("Men", "Women"), description="communities of attribute gender")
    race: Names = Field(
        ("African", "Arab", "Asian", "Caucasian", "Hispanic"),
        description="communities of attribute race",
    )
    religion: Names = Field(
        ("Buddhism", "Christian", "Hindu", "Islam", "Jewish"),
        description="communities of attribute religion",
    )
    several: Literal["multi", "drop"] = Field(
        "multi",
        description="posts about several communities of an attribute; multi: they count in each; "
        "drop: they count in none",
    )
    tokenizer: str = Field(
        TRAINED,
        min_length=1,
        description="trained: WordPiece trained on the training posts; or the name of a hub's "
        "tokenizer, such as bert-base-uncased",
    )
    vocabulary_size: int = Field(
        8000, ge=100, le=100_000, description="largest number of tokens of a trained tokenizer"
    )
    max_length: int = Field(
        128, ge=4, le=512, description="most tokens of a post; the rest is cut off"
    )


def check(config: Config) -> None:
    """Checks that the user's folder holds both files; see `given_files`."""
    if config.root:
        given_files(config.root)


def load(config: Config, folder: Path) -> Dataset:
    """Loads the posts as token ids, int64 [N, length of the longest].

    Ids count through `dataset.json`. Columns are `post_id` and the attributes: gender, race and
    religion, whose value is missing for posts about none of their communities, and every community
    by its name, with two groups such as `Women` and `not Women`. Attributes without two groups in
    the test split, or that are the label there, are left out.

    Raises:
        UserError: the files are not those of HateXplain, a class has no posts, or a community does
            not exist; says which.
        MachineError: files or tokenizer cannot be downloaded.
    """
    own_folder = folder / "hatexplain"
    root = found_files(config.root, own_folder)
    posts = read_posts(root / POSTS)
    splits = _labelled(posts, read_divisions(root / DIVISIONS), str(root / DIVISIONS))
    class_names = tuple(dict.fromkeys(CLASSES[config.classes].values()))
    communities = _communities(config, posts)
    number = {name: row for row, name in enumerate(posts)}
    chosen = [post for own in splits.values() for post in own]
    ends = np.cumsum([0, *map(len, splits.values())])
    rows = {name: np.arange(*ends[n : n + 2]) for n, name in enumerate(splits)}
    labels = np.array([class_names.index(_class(config, post)) for post in chosen], dtype=np.int64)
    in_splits = {name: labels[own] for name, own in rows.items()}
    check_classes(in_splits, class_names, f"dataset.root={str(root)!r}")
    columns = _columns(config, chosen, communities)
    test = rows["test"]
    offered = [str(name) for name in columns if name != POST_ID]
    attributes = usable_attributes(columns.iloc[test], labels[test], offered, config.name)
    inputs, vocabulary = _inputs(config, chosen, len(rows["train"]), own_folder)
    examples = Split(
        inputs,
        torch.from_numpy(labels),
        np.array([number[post.name] for post in chosen], dtype=np.int64),
        columns[[POST_ID, *attributes]],
    )
    return assembled(
        config,
        _digest(inputs, examples.columns, rows),
        examples,
        rows,
        class_names=class_names,
        attributes=attributes,
        vocabulary=vocabulary,
    )


def _labelled(
    posts: Mapping[str, Post], divisions: Mapping[str, Sequence[str]], where: str
) -> dict[str, list[Post]]:
    """Returns the posts of every split that have a label."""
    splits = {}
    if unread := set(posts).difference(*divisions.values()):
        say(f"hatexplain: {len(unread)} posts are in no split of {DIVISIONS} and are left out")
    for split, names in divisions.items():
        if absent := [name for name in names if name not in posts]:
            raise UserError(
                f"{where}: {len(absent)} posts of {split} are not in {POSTS} ({absent[0]!r}); "
                "allowed: two files that belong together"
            )
        splits[split] = [posts[name] for name in names if posts[name].label is not None]
    if dropped := sum(map(len, divisions.values())) - sum(map(len, splits.values())):
        say(f"hatexplain: {dropped} posts are dropped, on which all annotators differ")
    return splits


def _class(config: Config, post: Post) -> str:
    assert post.label is not None
    return CLASSES[config.classes][post.label]


def _communities(config: Config, posts: Mapping[str, Post]) -> list[str]:
    """Returns the communities that any post belongs to.

    Raises:
        UserError: an attribute is to be made of one that does not exist.
    """
    found = {community for post in posts.values() for community in post.communities}
    for attribute in ATTRIBUTES:
        for community in getattr(config, attribute):
            if community not in KNOWN and community not in found:
                raise unknown_name(f"dataset.{attribute}", community, found.union(KNOWN))
    return sorted(found)


def _columns(config: Config, posts: Sequence[Post], communities: Sequence[str]) -> pd.DataFrame:
    columns: dict[str, list[str | None]] = {POST_ID: [post.name for post in posts]}
    for attribute in ATTRIBUTES:
        own = set(getattr(config, attribute))
        columns[attribute] = [_group(post, own, config.several) for post in posts]
    for community in communities:
        columns[community] = [
            community if community in post.communities else f"not {community}" for post in posts
        ]
    return pd.DataFrame(columns, dtype=object)


def _group(post: Post, communities: set[str], several: str) -> str | None:
    """Returns the group of a post, or its groups; None for a post that is in none."""
    # Here and not above: it brings pandas.
    own = [community for community in post.communities if community in communities]
    if not own or (len(own) > 1 and several == "drop"):
        return None
    return SEVERAL.join(own)


def _inputs(
    config: Config, posts: Sequence[Post], training: int, folder: Path
) -> tuple[torch.Tensor, Vocabulary]:
    """Returns the token ids of the posts, all of one length, and what the ids mean.

    The first posts, `training` of them, are those of the training split.
    """
    texts = [post.text for post in posts]
    if config.tokenizer == TRAINED:
        tokenizer = trained_tokenizer(texts[:training], config.vocabulary_size, folder)
    else:
        tokenizer = hub_tokenizer(config.tokenizer)
    ids = tokenizer.encode(texts, config.max_length)
    return padded(ids, max(map(len, ids))), tokenizer.vocabulary


def _digest(inputs: torch.Tensor, columns: pd.DataFrame, rows: Mapping[str, Rows]) -> str:
    """Returns the SHA-256 of tokens and groups: texts, tokenizer and communities are in them."""
    digest = hashlib.sha256()
    for own in rows.values():
        digest.update(inputs.numpy()[own].astype("<i8").tobytes())
        digest.update(columns.iloc[own].to_csv(index=False).encode())
    return digest.hexdigest()
