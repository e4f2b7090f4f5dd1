"""The published files of HateXplain: read, with a message for every departure from their schema."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdplatform.data._sources import given_root
from kdplatform.data._text_files import read_text
from kdplatform.downloads import GIT_ID, download
from kdplatform.errors import UserError
from kdplatform.files import locked

POSTS, DIVISIONS = "dataset.json", "post_id_divisions.json"
SPLITS = ("train", "val", "test")
LABELS = ("normal", "offensive", "hatespeech")
# What an annotator tags a post with that is about no community.
NOBODY = "None"

# The authors' repository at a commit that will not change, and git's ids of the two files.
_ADDRESS = (
    "https://raw.githubusercontent.com/hate-alert/HateXplain/"
    "01d742279dac941981f53806154481c0e15ee686/Data/"
)
_GIT_IDS = {
    POSTS: "741bc082c38f4f8ee45cebdc868b3768e3901089",
    DIVISIONS: "3e8e9004da7ed480c7825cbde45e1129e7c0766e",
}
_ANNOTATORS = 3
_MAJORITY = 2


@dataclass(frozen=True)
class Post:
    """One post.

    Attributes:
        label: that of at least two of the three annotators; None when all three differ.
        communities: those that at least two annotators tagged, alphabetically.
    """

    name: str
    text: str
    label: str | None
    communities: tuple[str, ...]


def given_files(root: str) -> Path:
    """Returns the user's folder of the two files.

    Raises:
        UserError: it lacks one of them.
    """
    holding = f"{POSTS} and {DIVISIONS} (from {_ADDRESS}); without dataset.root they are downloaded"
    return given_root(root, holding, tuple(_GIT_IDS))


def found_files(root: str, folder: Path) -> Path:
    """Returns the folder of the two files: the user's, or one they are downloaded to.

    Raises:
        UserError: the user's folder lacks one of them.
        MachineError: they cannot be downloaded.
    """
    if root:
        return given_files(root)
    with locked(folder / "lock", "waiting for another process that downloads HateXplain"):
        for name, expected in _GIT_IDS.items():
            if not (folder / name).is_file():
                download(_ADDRESS + name, folder / name, expected, GIT_ID)
    return folder


def read_posts(path: Path) -> dict[str, Post]:
    """Reads all posts by their ids, in the order of the file.

    Raises:
        UserError: the file departs from its schema; names the post and the field.
    """
    content = _read_json(path)
    if not isinstance(content, dict) or not content:
        raise UserError(f"{str(path)!r} holds no posts; allowed: a JSON object of posts by id")
    return {name: _post(path, name, entry) for name, entry in content.items()}


def read_divisions(path: Path) -> dict[str, list[str]]:
    """Reads which posts are in which split.

    Raises:
        UserError: a split is missing, or a post is in two.
    """
    content = _read_json(path)
    if not isinstance(content, dict) or set(content) != set(SPLITS):
        raise UserError(
            f"{str(path)!r} is no list of splits; allowed: a JSON object of {', '.join(SPLITS)}"
        )
    for name, posts in content.items():
        if not isinstance(posts, list) or not all(isinstance(post, str) for post in posts):
            raise UserError(f"{str(path)!r}: {name} is no list of post ids")
    counts = Counter(post for posts in content.values() for post in posts)
    if twice := [post for post, count in counts.items() if count > 1]:
        raise UserError(f"{str(path)!r}: post {twice[0]!r} occurs twice; allowed: once")
    return {name: content[name] for name in SPLITS}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{str(path)!r}, line {error.lineno}, column {error.colno}: not valid JSON "
            f"({error.msg}); the file may be cut short"
        ) from None
    except RecursionError:
        raise UserError(
            f"{str(path)!r} is nested too deeply; allowed: the published file"
        ) from None


def _post(path: Path, name: str, entry: Any) -> Post:
    where = f"{str(path)!r}, post {name!r}"
    annotators = _list(where, entry, "annotators")
    tokens = _list(where, entry, "post_tokens")
    if not all(isinstance(token, str) for token in tokens):
        raise UserError(f"{where}: post_tokens are no list of texts")
    if len(annotators) != _ANNOTATORS:
        raise UserError(
            f"{where} has {len(annotators)} annotators; allowed: {_ANNOTATORS}, as published"
        )
    labels: Counter[str] = Counter()
    communities: Counter[str] = Counter()
    for annotator in annotators:
        targets = _list(where, annotator, "target")
        label = annotator.get("label")
        if label not in LABELS:
            raise UserError(f"{where}: label is {label!r}; allowed: {', '.join(LABELS)}")
        labels[label] += 1
        communities.update({str(target) for target in targets} - {NOBODY})
    label, votes = labels.most_common(1)[0]
    tagged = sorted(name for name, count in communities.items() if count >= _MAJORITY)
    return Post(name, " ".join(tokens), label if votes >= _MAJORITY else None, tuple(tagged))


def _list(where: str, entry: Any, field: str) -> list[Any]:
    value = entry.get(field) if isinstance(entry, dict) else None
    if not isinstance(value, list):
        raise UserError(f"{where}: {field} is missing or no list; allowed: the published schema")
    return value
