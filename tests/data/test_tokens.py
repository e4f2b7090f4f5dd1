import json
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
import torch
from huggingface_hub import constants

from kdplatform.data._tokens import SPECIAL, TextTokenizer, hub_tokenizer, padded, trained_tokenizer
from kdplatform.errors import UserError

TEXTS = [
    f"the {word} sees {count} others" for word in ("dog", "cat", "bird") for count in range(20)
]


def test_texts_begin_and_end_with_marks_and_are_cut(tmp_path: Path) -> None:
    tokenizer = trained_tokenizer(TEXTS, 200, tmp_path)
    (ids,) = tokenizer.encode(["The DOG sees the cat"], 128)
    assert len(ids) == 7
    assert (ids[0], ids[-1]) == (SPECIAL.index("[CLS]"), SPECIAL.index("[SEP]"))
    assert tokenizer.encode(["the dog sees the cat"], 128) == [ids]
    (cut,) = tokenizer.encode(["The DOG sees the cat"], 5)
    assert cut == [*ids[:4], ids[-1]]


def test_what_training_never_saw_is_unknown(tmp_path: Path) -> None:
    (ids,) = trained_tokenizer(TEXTS, 200, tmp_path).encode(["Ω"], 128)
    assert ids[1] == SPECIAL.index("[UNK]")


def test_the_vocabulary_is_kept_and_the_same_in_every_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from kdplatform.data._tokens import trained_tokenizer\n"
        "trained_tokenizer(sys.argv[2:], 60, Path(sys.argv[1]))\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "other"), *TEXTS]
    subprocess.run(words, check=True)
    trained_tokenizer(TEXTS, 60, tmp_path / "own")
    (own,) = (tmp_path / "own").glob("*.json")
    assert own.read_bytes() == (tmp_path / "other" / own.name).read_bytes()
    before = own.stat().st_mtime_ns
    assert trained_tokenizer(TEXTS, 60, tmp_path / "own").vocabulary.size <= 60
    assert own.stat().st_mtime_ns == before


def test_a_letter_inside_a_word_is_no_token_by_itself(tmp_path: Path) -> None:
    tokenizer = trained_tokenizer(TEXTS, 200, tmp_path)
    (ids,) = tokenizer.encode(["##o"], 128)
    (plain,) = tokenizer.encode(["o"], 128)
    assert len(ids) == 5  # a mark, twice what no text has, a letter, a mark
    assert ids[3] == plain[1]


def test_padding_is_zero() -> None:
    assert padded([[2, 5, 3], [2, 3]], 4).tolist() == [[2, 5, 3, 0], [2, 3, 0, 0]]
    assert padded([[2]], 1).dtype == torch.int64


def test_a_tokenizer_without_padding_at_zero_is_refused() -> None:
    other = tokenizers.Tokenizer(tokenizers.models.WordPiece({"a": 0, "[PAD]": 1}, unk_token="a"))
    with pytest.raises(UserError, match=r"dataset\.tokenizer='x' has not \[PAD\] as its token 0"):
        TextTokenizer("x", other)


def test_a_tokenizer_of_the_hub_is_taken_from_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    trained_tokenizer(TEXTS, 100, tmp_path)
    (vocabulary,) = tmp_path.glob("vocabulary-*.json")
    own = tmp_path / "hub" / "models--bert-base-uncased"
    path = own / "snapshots" / "1" / "tokenizer.json"
    path.parent.mkdir(parents=True)
    (own / "refs").mkdir()
    (own / "refs" / "main").write_text("1")
    path.write_text(vocabulary.read_text())
    found = hub_tokenizer("bert-base-uncased")
    assert found.vocabulary.name == "bert-base-uncased"
    assert found.vocabulary.size == len(json.loads(vocabulary.read_text())["model"]["vocab"])
    path.write_text("{")
    with pytest.raises(UserError, match=r"tokenizer\.json' cannot be read"):
        hub_tokenizer("bert-base-uncased")
