"""HateXplain's loader on files of the published schema, with harmless texts."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers.hatexplain_files import post, write_posts
from helpers.refusals import refusal_of

from kdplatform import downloads
from kdplatform.data import Dataset, hatexplain
from kdplatform.data._hatexplain_files import DIVISIONS, POSTS, found_files
from kdplatform.errors import MachineError

NOBODY = [["None"], ["None"], ["None"]]


def content() -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Every split has every label and posts of no, one and several communities."""
    kinds = {
        "normal": (("normal", "normal", "offensive"), NOBODY),
        "women": (("hatespeech", "hatespeech", "normal"), [["Women"], ["Women", "Arab"], ["None"]]),
        "men": (("offensive", "offensive", "offensive"), [["Men"], ["Men"], ["Men"]]),
        "both": (("normal",) * 3, [["Arab", "Asian", "Women"], ["Asian", "Arab"], ["Women"]]),
        "arab": (("hatespeech",) * 3, [["Arab"], ["Arab"], ["Other"]]),
        "tie": (("normal", "offensive", "hatespeech"), NOBODY),
    }
    posts, divisions = {}, {}
    for split, copies in (("train", 3), ("val", 1), ("test", 2)):
        names = [f"{kind}_{split}{copy}" for kind in kinds for copy in range(copies)]
        divisions[split] = names
        for name in names:
            tokens = ["word", name, "word"] * (1 + len(name) % 3)
            posts[name] = post(name, *kinds[name.partition("_")[0]], tokens)
    return posts, divisions


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_posts(tmp_path, *content())


def load(root: Path, **fields: Any) -> Dataset:
    fields.setdefault("vocabulary_size", 200)
    return hatexplain.load(hatexplain.Config(root=str(root), **fields), root / "cache")


def column(dataset: Dataset, name: str) -> dict[str, Any]:
    """Returns the attribute's value by kind of post."""
    columns = dataset.test.columns
    values = columns[name].astype(object).where(columns[name].notna(), None)
    return dict(zip(columns["post_id"].str.partition("_")[0], values, strict=True))


def test_labels_are_those_of_the_majority_and_ties_are_dropped(root: Path) -> None:
    dataset = load(root)
    assert dataset.class_names == ("normal", "toxic")
    assert {name: len(split) for name, split in dataset.splits().items()} == {
        "train": 15,
        "val": 5,
        "test": 10,
    }
    kinds = dataset.test.columns["post_id"].str.partition("_")[0]
    labels = dict(zip(kinds, dataset.test.labels.tolist(), strict=True))
    assert labels == {"normal": 0, "women": 1, "men": 1, "both": 0, "arab": 1}


def test_three_classes(root: Path) -> None:
    dataset = load(root, classes="three")
    assert dataset.class_names == ("normal", "offensive", "hatespeech")
    assert dataset.test.labels.bincount().tolist() == [4, 2, 4]


def test_inputs_are_token_ids_of_one_length(root: Path) -> None:
    dataset = load(root, max_length=6)
    inputs = dataset.train.inputs
    assert str(inputs.dtype) == "torch.int64"
    assert tuple(inputs.shape) == (15, 6)
    assert dataset.vocabulary is not None
    assert 0 <= int(inputs.min()) < int(inputs.max()) < dataset.vocabulary.size
    assert dataset.facts().vocabulary == dataset.vocabulary


def test_a_community_needs_two_annotators(root: Path) -> None:
    dataset = load(root)
    assert column(dataset, "gender") == {
        "normal": None,
        "women": "Women",
        "men": "Men",
        "both": "Women",
        "arab": None,
    }
    assert column(dataset, "Arab")["women"] == "not Arab"
    assert column(dataset, "Arab")["both"] == "Arab"


def test_posts_about_several_communities_are_in_each_of_them_or_in_none(root: Path) -> None:
    assert column(load(root), "race")["both"] == "Arab + Asian"
    several = load(root, several="drop")
    assert "race" not in several.attributes  # Arab alone is left in the test split
    with_men = load(root, several="drop", race=("Arab", "Asian", "Men"))
    assert column(with_men, "race")["both"] is None
    assert column(with_men, "race")["men"] == "Men"


def test_attributes_are_those_with_two_groups(root: Path) -> None:
    assert load(root).attributes == ("gender", "race", "Arab", "Asian", "Men", "Women")


def test_what_is_left_out_is_said(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    posts, divisions = content()
    del divisions["train"][0]
    for name, entry in posts.items():
        toxic = name.startswith(("women", "men", "arab"))
        for annotator in entry["annotators"]:
            annotator["target"] = ["Women" if toxic else "Men"]
    assert load(write_posts(root, posts, divisions)).attributes == ()
    said = capsys.readouterr().err
    assert f"hatexplain: 1 posts are in no split of {DIVISIONS} and are left out\n" in said
    assert "left out: race, religion, which has no group\n" in said
    assert "left out: gender, Men, Women, which is the label under another name\n" in said


def test_the_digest_is_of_what_was_read_and_how(root: Path) -> None:
    first = load(root)
    assert load(root).digest == first.digest
    assert load(root, max_length=6).digest != first.digest
    assert load(root, several="drop").digest != first.digest
    posts, divisions = content()
    posts["men_train0"]["post_tokens"] = ["other", "words"]
    assert load(write_posts(root, posts, divisions)).digest != first.digest


def test_ids_are_unique_over_the_splits(root: Path) -> None:
    ids = [i for split in load(root).splits().values() for i in split.ids.tolist()]
    assert len(set(ids)) == len(ids)


refusal = partial(refusal_of, load)


@pytest.mark.parametrize("name", [POSTS, DIVISIONS])
def test_a_missing_file_is_named(root: Path, name: str) -> None:
    (root / name).unlink()
    assert f"lacks {name}" in refusal(root)


@pytest.mark.parametrize("name", [POSTS, DIVISIONS])
def test_a_file_cut_short_is_named_with_the_place(root: Path, name: str) -> None:
    text = (root / name).read_text()
    (root / name).write_text(text[: len(text) // 2])
    said = refusal(root)
    assert name in said
    assert "line 1, column" in said


def test_a_file_in_another_encoding_is_named(root: Path) -> None:
    (root / POSTS).write_bytes(b'{"a": "\xff"}')
    assert "not UTF-8" in refusal(root)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p["men_train0"].pop("annotators"), "'men_train0': annotators is missing"),
        (lambda p: p["men_train0"]["annotators"].pop(), "has 2 annotators; allowed: 3"),
        (lambda p: p["men_train0"]["annotators"][0].update(label="rude"), "label is 'rude'"),
        (lambda p: p["men_train0"].update(post_tokens="word"), "post_tokens is missing or no list"),
        (lambda p: p["men_train0"]["annotators"][0].pop("target"), "target is missing"),
        (lambda p: p.pop("men_train0"), "1 posts of train are not in dataset.json ('men_train0')"),
        (lambda p: p.clear(), "holds no posts"),
    ],
)
def test_departures_from_the_schema_are_named(root: Path, change: Any, said: str) -> None:
    posts, divisions = content()
    change(posts)
    assert said in refusal(write_posts(root, posts, divisions))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda d: d.pop("val"),
            "is no list of splits; allowed: a JSON object of train, val, test",
        ),
        (lambda d: d["val"].append(d["train"][0]), "occurs twice"),
        (lambda d: d.update(val=3), "val is no list"),
    ],
)
def test_wrong_divisions_are_named(root: Path, change: Any, said: str) -> None:
    posts, divisions = content()
    change(divisions)
    assert said in refusal(write_posts(root, posts, divisions))


def test_a_class_without_posts_is_named(root: Path) -> None:
    posts, divisions = content()
    divisions["val"] = [name for name in divisions["val"] if name.startswith(("normal", "both"))]
    said = refusal(write_posts(root, posts, divisions))
    assert "fewer than 1 val examples ('toxic')" in said


def test_an_unknown_community_is_answered_with_the_nearest(root: Path) -> None:
    said = refusal(root, race=("Africans", "Arab"))
    assert "dataset.race='Africans' does not exist; did you mean 'African'" in said


def test_downloads_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_PAUSE_SECONDS", 0.0)
    sent = {POSTS: "{}", DIVISIONS: "{}"}

    def transfer(url: str, target: Path) -> None:
        target.write_text(sent[url.rpartition("/")[2]])

    monkeypatch.setattr(downloads, "_transfer", transfer)
    with pytest.raises(MachineError, match=r"sent another file \(git id 9e26dfee"):
        found_files("", tmp_path)
    assert not (tmp_path / POSTS).exists()


def test_the_git_id_is_gits(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"hello\n")
    assert downloads.git_id_of(path) == "ce013625030ba8dba906f756967f9e9ca394464a"
