"""Reads MovieLens' lists of ratings, users and movies; names every departure from a layout.

Three layouts: the official files of 100K (`u.data`, `u.user`, `u.item`) and of 1M (`ratings.dat`,
`users.dat`, `movies.dat`), and the atomic files of RecBole (`NAME.inter`, `.user`, `.item`), whose
first line names columns with their types.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdplatform.columns import MISSING
from kdplatform.data._sources import Archive, given_root, obtained
from kdplatform.data._text_files import read_text
from kdplatform.errors import UserError
from kdplatform.progress import say

_ADDRESS = "https://files.grouplens.org/datasets/movielens"
# Editions by `dataset.edition`: their archives, with the checksums published beside them.
ARCHIVES = {
    "100k": Archive(
        f"{_ADDRESS}/ml-100k.zip", "ml-100k.zip", "0e33842e24a9c977be4e0107933c0723", "ml-100k"
    ),
    "1m": Archive(
        f"{_ADDRESS}/ml-1m.zip", "ml-1m.zip", "c4d9eecfca2ab87c1945afe126590906", "ml-1m"
    ),
}
# Of an official edition: ratings, users, movies, and the separators of their columns.
_OFFICIAL = {
    "100k": (("u.data", "\t"), ("u.user", "|"), ("u.item", "|")),
    "1m": (("ratings.dat", "::"), ("users.dat", "::"), ("movies.dat", "::")),
}
_ENDINGS = (".inter", ".user", ".item")
_RATING = ("user_id", "item_id", "rating", "timestamp")
# Columns of the official files, in their order; None: not read.
_COLUMNS: dict[str, tuple[str | None, ...]] = {
    "u.data": _RATING,
    "u.user": ("user_id", "age", "gender", "occupation", None),
    "u.item": ("item_id", "movie_title", *[None] * 22),
    "ratings.dat": _RATING,
    "users.dat": ("user_id", "gender", "age", "occupation", None),
    "movies.dat": ("item_id", "movie_title", None),
}
# Columns of RecBole's files: those required, those also read, and those known but not read.
_ATOMIC: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    ".inter": (_RATING, (), ()),
    ".user": (("user_id", "age", "gender", "occupation"), (), ("zip_code",)),
    ".item": (("item_id", "movie_title"), ("release_year",), ("class", "genre")),
}
# The occupations of 1M by their codes, from its README.
_OCCUPATIONS = (
    *("other", "educator", "artist", "clerical", "student", "customer service", "health care"),
    *("executive", "farmer", "homemaker", "K-12 student", "lawyer", "programmer", "retired"),
    *("sales", "scientist", "self-employed", "technician", "craftsman", "unemployed", "writer"),
)
_GENDERS = {"M": "men", "F": "women", "": MISSING}
# The age groups of 1M, by the first age of each.
_AGES = {
    0: "under 18",
    18: "18-24",
    25: "25-34",
    35: "35-44",
    45: "45-49",
    50: "50-55",
    56: "56 and over",
}
_MOST_NAMED = 3
# Up to here floating point numbers hold every second.
_LATEST = 2**53


class User(NamedTuple):
    """The groups of a user."""

    gender: str
    age_group: str
    occupation: str


@dataclass(frozen=True)
class MovieLens:
    """What the files hold: N ratings in the order of the file, each pair of user and movie once.

    Attributes:
        user_ids: [N], as the file names them.
        item_ids: [N], likewise.
        ratings: float64 [N].
        times: int64 [N], in seconds since 1970.
        users: by id.
        titles: of the movies, by id.
    """

    user_ids: Sequence[str]
    item_ids: Sequence[str]
    ratings: NDArray[np.float64]
    times: NDArray[np.int64]
    users: Mapping[str, User]
    titles: Mapping[str, str]


@dataclass(frozen=True)
class _Table:
    """The cells of a list that are read, as columns; and the number of each line."""

    path: Path
    lines: Sequence[int]
    columns: Mapping[str, Sequence[str]]

    def rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Yields each line's number, and its cells by their columns."""
        for line, cells in zip(self.lines, zip(*self.columns.values(), strict=True), strict=True):
            yield line, dict(zip(self.columns, cells, strict=True))


class _Found(NamedTuple):
    """The three files in one layout: ratings, users, movies, and their separators."""

    files: tuple[tuple[Path, str], ...]


def given_files(root: str, edition: str) -> Path:
    """Returns the folder of the lists below the user's folder, or the one of the archive.

    Raises:
        UserError: there are none, or they are of another edition.
    """
    archive = ARCHIVES[edition]
    names = ", ".join(name for name, _ in _OFFICIAL[edition])
    holding = (
        f"{names} or {archive.name} (from {archive.url}), or one .inter, .user and .item of "
        "RecBole; without dataset.root it is downloaded"
    )
    given = given_root(root, holding)
    for folder in (given, given / archive.folder):
        if _layout(folder, edition, root) is not None:
            return folder
    if (given / archive.name).is_file():
        return given
    for other, own in ARCHIVES.items():
        if other != edition and (given / own.folder).is_dir():
            raise _other_edition(root, own.folder, other, edition)
    raise UserError(f"dataset.root={root!r} holds no ratings; allowed: a folder with {holding}")


def check_files(root: str, edition: str) -> None:
    """Checks, from their heads, that the lists exist and have the columns that are read.

    Raises:
        UserError: as `given_files` and `read_files`.
    """
    folder = given_files(root, edition)
    found = _layout(folder, edition, root)
    for path, separator in found.files if found else ():
        if path.name not in _COLUMNS:
            with path.open(encoding="utf-8-sig", errors="replace") as file:
                _header(path, file.readline().rstrip("\n").split(separator))


def read_files(root: str, edition: str, folder: Path) -> MovieLens:
    """Reads the lists of the user's folder, or those of an edition downloaded below `folder`.

    Raises:
        UserError: a file is missing or departs from its layout, a pair of user and item occurs
            twice, or a rating is of an unknown user or movie; says where.
        MachineError: the archive cannot be downloaded.
    """
    archive = ARCHIVES[edition]
    place = given_files(root, edition) if root else folder
    found = _layout(place, edition, root) if root else None
    if found is None:
        unpacked = obtained(archive, str(place) if root else "", folder) / archive.folder
        found = _layout(unpacked, edition, root)
        if found is None:
            names = ", ".join(name for name, _ in _OFFICIAL[edition])
            raise UserError(f"{str(unpacked)!r} lacks {names}; allowed: the files of {archive.url}")
    ratings, users, movies = (_read(*file) for file in found.files)
    rating, time = _numbers(ratings)
    for table, name in ((users, "user_id"), (movies, "item_id")):
        _check_once(table, name)
    read = MovieLens(
        ratings.columns["user_id"],
        ratings.columns["item_id"],
        rating,
        time,
        {row["user_id"]: _user(users.path, line, row) for line, row in users.rows()},
        {row["item_id"]: _title(row) for _, row in movies.rows()},
    )
    _check(read, ratings.path, users.path, movies.path)
    return read


def _layout(folder: Path, edition: str, root: str) -> _Found | None:
    """Returns the three files of a folder's layout; None if it has none.

    Raises:
        UserError: it lacks some files of a layout, or has those of another edition.
    """
    for other, files in _OFFICIAL.items():
        there = [name for name, _ in files if (folder / name).is_file()]
        if there and other != edition:
            raise _other_edition(root, there[0], other, edition)
        if there:
            names = [name for name, _ in files]
            _check_whole(folder, names, [name for name in names if name not in there])
            return _Found(tuple((folder / name, separator) for name, separator in files))
    inter = sorted(folder.glob("*.inter"))
    if len(inter) > 1:
        raise UserError(
            f"dataset.root={root!r} holds {len(inter)} files .inter ({inter[0].name}, "
            f"{inter[1].name}); allowed: one"
        )
    if not inter:
        return None
    paths = [inter[0].with_suffix(ending) for ending in _ENDINGS]
    _check_whole(folder, [p.name for p in paths], [p.name for p in paths if not p.is_file()])
    return _Found(tuple((path, "\t") for path in paths))


def _check_whole(folder: Path, names: Sequence[str], missing: Sequence[str]) -> None:
    if missing:
        raise UserError(f"{str(folder)!r} lacks {', '.join(missing)}; allowed: {', '.join(names)}")


def _other_edition(root: str, found: str, other: str, edition: str) -> UserError:
    return UserError(
        f"dataset.edition={edition!r}, and dataset.root={root!r} holds {found}; allowed: "
        f"dataset.edition={other!r}, or a folder with that edition"
    )


def _read(path: Path, separator: str) -> _Table:
    """Reads the lines of a list.

    Raises:
        UserError: a line has more or fewer columns than the layout; says which.
    """
    atomic = path.name not in _COLUMNS
    # The official files are older than UTF-8.
    content = read_text(path, "utf-8-sig" if atomic else "latin-1").split("\n")
    columns: Sequence[str | None] = () if atomic else _COLUMNS[path.name]
    if atomic:
        columns = _header(path, content[0].split(separator))
    numbered = list(enumerate(content, start=1))[int(atomic) :]
    lines = [number for number, line in numbered if line.strip()]
    cells = [line.split(separator) for _, line in numbered if line.strip()]
    for number, own in zip(lines, cells, strict=True):
        if len(own) != len(columns):
            raise UserError(
                f"{str(path)!r}, line {number}: {len(own)} columns; allowed: {len(columns)} "
                f"({', '.join(name for name in columns if name)})"
            )
    if not cells:
        raise UserError(f"{str(path)!r} has no line of data; allowed: at least one")
    by_column = zip(columns, zip(*cells, strict=True), strict=True)
    return _Table(
        path, lines, {name: [cell.strip() for cell in own] for name, own in by_column if name}
    )


def _check_once(table: _Table, name: str) -> None:
    """Refuses a list of users or movies that has one of them twice."""
    counts = Counter(table.columns[name])
    if twice := [own for own, count in counts.items() if count > 1]:
        raise UserError(
            f"{str(table.path)!r}: {len(twice)} of {name} occur more than once "
            f"({', '.join(twice[:_MOST_NAMED])}); allowed: each once"
        )


def _header(path: Path, cells: Sequence[str]) -> list[str | None]:
    """Returns the columns that are read of a file of RecBole's, None in place of others.

    Raises:
        UserError: a column is missing, unknown in a list of ratings, or there twice.
    """
    wanted, optional, known = _ATOMIC[path.suffix]
    names = [cell.strip().partition(":")[0] for cell in cells]
    missing = [name for name in wanted if name not in names]
    unknown = [name for name in names if name not in (*wanted, *optional, *known)]
    if missing or len(set(names)) < len(names):
        fault = f"column {missing[0]!r} is missing" if missing else "a column occurs twice"
        raise UserError(
            f"{str(path)!r}: {fault} (columns: {', '.join(names)}); allowed: "
            f"{', '.join(wanted)}, with their types as RecBole writes them"
        )
    if unknown and path.suffix == ".inter":
        raise UserError(
            f"{str(path)!r}: column {unknown[0]!r} is unknown; allowed: {', '.join(wanted)}"
        )
    if unknown:
        say(f"movielens: columns that are not read in {path.name}: {', '.join(unknown)}")
    return [name if name in (*wanted, *optional) else None for name in names]


def _numbers(table: _Table) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Returns ratings and times; RecBole writes times as floating point numbers."""
    texts = [table.columns[name] for name in ("rating", "timestamp")]
    try:
        ratings, times = (np.array(own, dtype=np.float64) for own in texts)
    except ValueError:
        ratings, times = (np.array([_number(text) for text in own]) for own in texts)
    known = np.isfinite(ratings) & np.isfinite(times) & (np.abs(times) < _LATEST)
    bad = np.flatnonzero(~known)
    if len(bad):
        rating, time = (own[bad[0]] for own in texts)
        raise UserError(
            f"{str(table.path)!r}, line {table.lines[bad[0]]}: rating {rating!r} at {time!r}; "
            "allowed: a number, at seconds since 1970"
        )
    return ratings, times.astype(np.int64)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _user(path: Path, line: int, row: Mapping[str, str]) -> User:
    gender, age, occupation = row["gender"], row["age"], row["occupation"]
    if gender not in _GENDERS or not (age.isdecimal() or not age):
        raise UserError(
            f"{str(path)!r}, line {line}: gender {gender!r}, age {age!r}; allowed: M or F, and a "
            "whole number"
        )
    if occupation.isdecimal():
        if int(occupation) >= len(_OCCUPATIONS):
            raise UserError(
                f"{str(path)!r}, line {line}: occupation {occupation}; allowed: 0 to "
                f"{len(_OCCUPATIONS) - 1}, or a name"
            )
        occupation = _OCCUPATIONS[int(occupation)]
    group = _AGES[max(first for first in _AGES if first <= int(age))] if age else MISSING
    return User(_GENDERS[gender], group, occupation or MISSING)


def _title(row: Mapping[str, str]) -> str:
    """Returns a movie's title with its year, as the official files have it."""
    year = row.get("release_year", "")
    return f"{row['movie_title']} ({year})" if year.isdecimal() else row["movie_title"]


def _check(read: MovieLens, ratings: Path, users: Path, movies: Path) -> None:
    """Refuses pairs that occur twice, and ratings of users and movies that are in no list."""
    counts = Counter(zip(read.user_ids, read.item_ids, strict=True))
    if len(counts) < len(read.user_ids):
        twice = [pair for pair, count in counts.items() if count > 1]
        some = ", ".join(f"user {user} and item {item}" for user, item in twice[:_MOST_NAMED])
        raise UserError(
            f"{str(ratings)!r}: {len(twice)} pairs occur more than once ({some}); allowed: each "
            "pair of user and item once"
        )
    for kind, path, known, own in (
        ("users", users, read.users, set(read.user_ids)),
        ("movies", movies, read.titles, set(read.item_ids)),
    ):
        if unknown := sorted(own - set(known)):
            raise UserError(
                f"{str(ratings)!r}: {len(unknown)} {kind} are not in {path.name} "
                f"({', '.join(unknown[:_MOST_NAMED])}); allowed: lists that belong together"
            )
        if idle := sorted(set(known) - own, key=_in_order):
            say(
                f"movielens: left out: {len(idle)} {kind} of {path.name} without a rating "
                f"({', '.join(idle[:_MOST_NAMED])})"
            )


def _in_order(name: str) -> tuple[bool, int, str]:
    """Sorts ids that are numbers as numbers, before all others."""
    return not name.isdecimal(), int(name) if name.isdecimal() else 0, name


def in_order(names: Iterable[str]) -> list[str]:
    """Returns ids in an order that does not depend on the file's: numbers as numbers."""
    return sorted(names, key=_in_order)
