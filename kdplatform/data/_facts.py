"""What a model needs to know of the data it is built for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kdplatform.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Vocabulary:
    """The tokens behind the ids of a text dataset; id 0 is padding.

    Attributes:
        name: of the tokenizer: a hub's name, or `trained`.
        size: number of tokens; ids are 0 to size - 1.
        tokens: what each id stands for, where texts are to be shown; empty where it is not known.
    """

    name: str
    size: int
    tokens: tuple[str, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class Interactions:
    """Who took what in training: inputs are users, classes are items.

    Attributes:
        user_count: users are 0 to user_count - 1.
        users: int64 [M], of each training example.
        items: int64 [M].
    """

    user_count: int
    users: Tensor
    items: Tensor


@dataclass(frozen=True)
class DataFacts:
    """Shapes and names of a dataset, without its examples.

    Methods are given the name of the model that asks, for their errors.

    Attributes:
        input_shape: of one example: (channels, height, width) of an image, (features,) of a row of
            a table, (length,) of token ids, (1,) of the number of a user.
        class_names: one per logit.
        vocabulary: of token ids; None for any other inputs.
        interactions: of users and items; None for any other inputs.
    """

    input_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    vocabulary: Vocabulary | None = None
    interactions: Interactions | None = field(default=None, compare=False)

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return len(self.class_names)

    @property
    def holds_images(self) -> bool:
        """Whether an example is an image."""
        return len(self.input_shape) == 3 and self.vocabulary is None

    @property
    def holds_numbers(self) -> bool:
        """Whether an example is numbers that can be scaled: of an image, or features."""
        return self.vocabulary is None and self.interactions is None

    def image_shape(self, model: str) -> tuple[int, int]:
        """Returns channels and side of the images.

        Raises:
            UserError: the examples are no images.
        """
        if not self.holds_images:
            raise self._mismatch(model, "images")
        return self.input_shape[0], self.input_shape[-1]

    def token_shape(self, model: str) -> tuple[int, Vocabulary]:
        """Returns length and vocabulary of the token ids.

        Raises:
            UserError: the examples are no token ids.
        """
        if self.vocabulary is None or len(self.input_shape) != 1:
            raise self._mismatch(model, "token ids")
        return self.input_shape[0], self.vocabulary

    def feature_count(self, model: str) -> int:
        """Returns how many numbers an example of images or features has.

        Raises:
            UserError: the examples are token ids or users.
        """
        if not self.holds_numbers:
            raise self._mismatch(model, "images or features")
        return math.prod(self.input_shape)

    def taken(self, model: str) -> Interactions:
        """Returns who took what in training.

        Raises:
            UserError: the examples are no users.
        """
        if self.interactions is None:
            raise self._mismatch(model, "users, and classes that are items")
        return self.interactions

    def _mismatch(self, model: str, wanted: str) -> UserError:
        kind = "token ids" if self.vocabulary is not None else "inputs"
        kind = "users" if self.interactions is not None else kind
        return UserError(
            f"model={model!r} takes {wanted}; this dataset has {kind} of shape {self.input_shape}"
        )
