"""Texts to token ids: a WordPiece vocabulary trained on the training split, or one of the hub's.

WordPiece as BERT uses it (Devlin et al. 2018, arXiv 1810.04805): lower case, words split at
punctuation, each cut into the longest known pieces; [CLS] before and [SEP] behind a text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdplatform.data import Vocabulary
from kdplatform.downloads import hub_file
from kdplatform.errors import UserError, one_line
from kdplatform.files import locked, written_atomically
from kdplatform.lazy import torch
from kdplatform.registry import optional_module

TRAINED = "trained"
# Padding is first: id 0 means that the text has ended.
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Raised whenever equal texts would give another vocabulary: an older one is then not found.
_VERSION = 1
# Pieces that occur once are noise of a few thousand texts.
_LEAST_OCCURRENCES = 2
_NEEDED_BY = "dataset.tokenizer={!r}"


class TextTokenizer:
    """Cuts texts into tokens.

    Args:
        name: `trained`, or a repository of the hub.
        tokenizer: of the tokenizers library.

    Raises:
        UserError: id 0 is not padding.
    """

    def __init__(self, name: str, tokenizer: Any) -> None:
        if tokenizer.token_to_id(SPECIAL[0]) != 0:
            raise UserError(
                f"{_NEEDED_BY.format(name)} has not [PAD] as its token 0; allowed: trained, or a "
                "tokenizer of BERT's kind such as bert-base-uncased"
            )
        size = tokenizer.get_vocab_size()
        tokens = tuple(tokenizer.id_to_token(number) or "" for number in range(size))
        self.vocabulary = Vocabulary(name, size, tokens)
        self._tokenizer = tokenizer

    def encode(self, texts: Sequence[str], max_length: int) -> list[list[int]]:
        """Returns the ids of every text, at most `max_length` with [CLS] and [SEP] among them."""
        self._tokenizer.enable_truncation(max_length)
        self._tokenizer.no_padding()
        return [encoded.ids for encoded in self._tokenizer.encode_batch(list(texts))]


def padded(ids: Sequence[Sequence[int]], length: int) -> torch.Tensor:
    """Returns token ids as int64 [N, length], with zeros behind every text's end."""
    table = np.zeros((len(ids), length), dtype=np.int64)
    for row, own in enumerate(ids):
        table[row, : len(own)] = own
    return torch.from_numpy(table)


def hub_tokenizer(repository: str) -> TextTokenizer:
    """Returns the tokenizer of a hub's repository, from its cache or downloaded.

    Raises:
        UserError: a library is not installed, or the tokenizer cannot be read.
        MachineError: it is not there and cannot be downloaded.
    """
    needed_by = _NEEDED_BY.format(repository)
    tokenizers = optional_module("tokenizers", needed_by=needed_by, extra="text")
    path = hub_file(repository, "tokenizer.json", needed_by=needed_by, extra="text")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:
        raise UserError(f"{needed_by}: {str(path)!r} cannot be read ({one_line(error)})") from None
    return TextTokenizer(repository, tokenizer)


def trained_tokenizer(texts: Sequence[str], size: int, folder: Path) -> TextTokenizer:
    """Returns a tokenizer whose vocabulary is trained on some texts, once, and kept.

    Args:
        texts: of the training split.
        size: the most tokens of the vocabulary.
        folder: where vocabularies are kept, one file per texts and size.

    Raises:
        UserError: the tokenizers library is not installed.
    """
    tokenizers = optional_module("tokenizers", needed_by=_NEEDED_BY.format(TRAINED), extra="text")
    settings = [_VERSION, size, SPECIAL, _LEAST_OCCURRENCES, tokenizers.__version__, list(texts)]
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
    path = folder / f"vocabulary-{key}.json"
    with locked(path.with_suffix(".lock"), "another process trains the vocabulary; waiting"):
        if not path.is_file():
            with written_atomically(path) as temporary:
                temporary.write_text(_trained(tokenizers, texts, size).to_str(), encoding="utf-8")
    return TextTokenizer(TRAINED, tokenizers.Tokenizer.from_file(str(path)))


def _trained(tokenizers: Any, texts: Sequence[str], size: int) -> Any:
    """Trains a tokenizer so that equal texts give equal tokens in every process."""
    learning = _bert_like(tokenizers, tokenizers.models.WordPiece(unk_token="[UNK]"))
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=_LEAST_OCCURRENCES,
        # The library numbers the letters inside words in the order of a hash table, which differs
        # between processes, and it breaks ties between pieces by number. Letters given here are
        # numbered first.
        special_tokens=[*SPECIAL, *_inner_letters(learning, texts)],
        show_progress=False,
    )
    learning.train_from_iterator(texts, trainer)
    # Anew from the vocabulary: a letter inside a word is no special token in what comes out.
    vocabulary = dict(sorted(learning.get_vocab().items(), key=lambda item: item[1]))
    tokenizer = _bert_like(tokenizers, tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def _bert_like(tokenizers: Any, model: Any) -> Any:
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _inner_letters(tokenizer: Any, texts: Sequence[str]) -> list[str]:
    """Returns the letters that any word has behind its first one, as WordPiece writes them."""
    letters: set[str] = set()
    for text in texts:
        normalised = tokenizer.normalizer.normalize_str(text)
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normalised):
            letters.update(word[1:])
    return [f"##{letter}" for letter in sorted(letters)]
