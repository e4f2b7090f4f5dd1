"""Small MovieLens: ratings of users by the popularity of movies, in the layouts there are."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

OCCUPATIONS = {0: "other", 12: "programmer", 20: "writer"}


@dataclass(frozen=True)
class Ratings:
    """Lines of the lists: (user, item, rating, time), (user, gender, age, occupation), titles."""

    ratings: tuple[tuple[int, int, int, int], ...]
    users: tuple[tuple[int, str, int, int], ...]
    titles: dict[int, str]

    def with_ratings(self, *more: tuple[int, int, int, int]) -> "Ratings":
        return replace(self, ratings=(*self.ratings, *more))


def zipf_ratings(users: int = 40, items: int = 60, seed: int = 0) -> Ratings:
    """Returns users of 6 to 15 movies each, movie i being taken with a chance like 1 / i."""
    random = np.random.default_rng(seed)
    chances = 1 / np.arange(1, items + 1)
    lines = []
    for user in range(1, users + 1):
        own = random.choice(items, random.integers(6, 16), replace=False, p=chances / chances.sum())
        times = 900_000_000 + random.permutation(10 * len(own))[: len(own)]
        lines += [
            (user, int(item) + 1, int(random.integers(1, 6)), int(time))
            for item, time in zip(own, times, strict=True)
        ]
    people = [
        (user, "MF"[user % 2], (17, 20, 30, 60)[user % 4], (0, 12, 20)[user % 3])
        for user in range(1, users + 1)
    ]
    taken = {line[1] for line in lines}
    titles = {item: f"Film {item} (19{item % 100:02})" for item in taken}
    return Ratings(tuple(lines), tuple(people), titles)


def write_100k(folder: Path, content: Ratings) -> Path:
    """Writes the official files of 100K."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "u.data", ["\t".join(map(str, line)) for line in content.ratings])
    _write(
        folder / "u.user",
        [f"{u}|{age}|{gender}|{OCCUPATIONS[job]}|12345" for u, gender, age, job in content.users],
    )
    flags = "|".join("0" * 19)
    _write(
        folder / "u.item",
        [f"{item}|{title}|01-Jan-1995||http://|{flags}" for item, title in content.titles.items()],
    )
    return folder


def write_1m(folder: Path, content: Ratings) -> Path:
    """Writes the official files of 1M."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "ratings.dat", ["::".join(map(str, line)) for line in content.ratings])
    _write(
        folder / "users.dat",
        [f"{u}::{gender}::{age}::{job}::12345" for u, gender, age, job in content.users],
    )
    _write(
        folder / "movies.dat",
        [f"{item}::{title}::Drama|Comedy" for item, title in content.titles.items()],
    )
    return folder


def write_atomic(folder: Path, content: Ratings) -> Path:
    """Writes the atomic files of RecBole."""
    folder.mkdir(parents=True, exist_ok=True)
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    lines = [f"{u}\t{i}\t{rating}\t{time}.0" for u, i, rating, time in content.ratings]
    _write(folder / "ml.inter", [header, *lines], "utf-8")
    header = "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token"
    _write(
        folder / "ml.user",
        [header]
        + [f"{u}\t{age}\t{sex}\t{OCCUPATIONS[job]}\t12345" for u, sex, age, job in content.users],
        "utf-8",
    )
    header = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"
    _write(
        folder / "ml.item",
        [header]
        + [
            f"{item}\t{title[:-7]}\t{title[-5:-1]}\tDrama" for item, title in content.titles.items()
        ],
        "utf-8",
    )
    return folder


def _write(path: Path, lines: list[str], encoding: str = "latin-1") -> None:
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
