"""BERT and its small relatives, from transformers, as classifiers of token ids.

BERT-Base: Devlin et al. 2018 (arXiv 1810.04805). DistilBERT: Sanh et al. 2019 (arXiv 1910.01108).
BERT-Tiny and BERT-Mini: the sizes of Turc et al. 2019 (arXiv 1908.08962). Padding (id 0) is
masked.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from kdplatform.data import DataFacts
from kdplatform.errors import UserError
from kdplatform.models import register_model
from kdplatform.models.pretrained import Pretrained, hub_state, register_pretrained
from kdplatform.registry import optional_module


def _sizes(layers: int, width: int) -> dict[str, int]:
    """Returns a size of Turc et al.: heads of 64, inner layers four times as wide."""
    return {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": width // 64,
        "intermediate_size": 4 * width,
    }


# Names of transformers' classes and what differs from their defaults.
BERT = ("BertConfig", "BertForSequenceClassification")
DISTILBERT = ("DistilBertConfig", "DistilBertForSequenceClassification")
KINDS: dict[str, tuple[tuple[str, str], Mapping[str, int]]] = {
    "bert_base": (BERT, {}),
    "distilbert": (DISTILBERT, {}),
    "bert_mini": (BERT, _sizes(4, 256)),
    "bert_tiny": (BERT, _sizes(2, 128)),
}

# The uncased vocabulary of 30,522 WordPieces, which both share.
_TOKENIZERS = (
    "bert-base-uncased",
    "distilbert-base-uncased",
    "google-bert/bert-base-uncased",
    "distilbert/distilbert-base-uncased",
)


def _published(repository: str, prefix: str, *new_layers: str) -> Pretrained:
    return Pretrained(
        f"hub {repository}",
        hub_state(repository, extra="text", prefix=prefix, wrapped_as="network."),
        tokenizers=_TOKENIZERS,
        new_layers=tuple(f"network.{layer}" for layer in new_layers),
    )


register_pretrained(
    "bert_base", weights=_published("google-bert/bert-base-uncased", "bert.", "classifier.")
)
register_pretrained(
    "distilbert",
    weights=_published(
        "distilbert/distilbert-base-uncased", "distilbert.", "pre_classifier.", "classifier."
    ),
)


class TextClassifier(nn.Module):
    """A transformers classifier that takes only token ids.

    Args:
        network: takes `input_ids` and `attention_mask` and returns `logits`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps token ids [B, length] to logits [B, classes]."""
        output = self.network(input_ids=tokens, attention_mask=(tokens != 0).long())
        logits: Tensor = output.logits
        return logits


@register_model("bert_base", "distilbert", "bert_mini", "bert_tiny")
def build(name: str, data: DataFacts) -> nn.Module:
    """Builds the text classifier of this name.

    Raises:
        UserError: the texts have more tokens than the model has positions.
    """
    length, vocabulary = data.token_shape(name)
    transformers = optional_module("transformers", needed_by=f"model={name!r}", extra="text")
    (config_name, class_name), sizes = KINDS[name]
    config: Any = getattr(transformers, config_name)(
        vocab_size=vocabulary.size, num_labels=data.num_classes, pad_token_id=0, **sizes
    )
    if length > config.max_position_embeddings:
        raise UserError(
            f"model={name!r} cannot take texts of {length} tokens; allowed: at most "
            f"{config.max_position_embeddings}, see dataset.max_length"
        )
    network: nn.Module = getattr(transformers, class_name)(config)
    return TextClassifier(network)
