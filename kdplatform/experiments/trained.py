"""A model in the tracking store."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from torch import nn

from kdplatform.experiments.artifacts import artifact_path, drop_copy
from kdplatform.experiments.graph import Step
from kdplatform.experiments.tracking import artifact_digests
from kdplatform.experiments.weights import WEIGHTS
from kdplatform.predictions import Predictions

PREDICTIONS = "predictions/{split}.parquet"
# Tag with the digests of the weights that a run's model depends on, by the models' names.
TAG_NEEDS = "kd.needs"
# Tag with the digest of the starting weights that a user's function returned.
TAG_START = "kd.start"


@dataclass(frozen=True)
class TrainedModel:
    """A trained model: its step, its run, and its predictions.

    Attributes:
        found: the run from a search; None: it is requested when it is needed.
    """

    step: Step
    run_id: str
    reused: bool
    found: Run | None = field(default=None, compare=False, repr=False)

    @cached_property
    def run(self) -> Run:
        """The run from the store, with one request at most."""
        return self.found or MlflowClient().get_run(self.run_id)

    @cached_property
    def test(self) -> Predictions:
        """Predictions of the test split, read at the first request."""
        return self._read("test")

    def has(self, split: str) -> bool:
        """Returns whether predictions of a split were logged; a teacher's file may lack them."""
        return PREDICTIONS.format(split=split) in artifact_digests(self.run)

    def predictions(self, split: str) -> Predictions:
        """Returns the predictions of a split."""
        return self.test if split == "test" else self._read(split)

    def _read(self, split: str) -> Predictions:
        table = PREDICTIONS.format(split=split)
        predictions = Predictions.read(artifact_path(self.run_id, table))
        drop_copy(self.run_id, table)
        return predictions


def needs_tag(needed: Mapping[str, TrainedModel]) -> dict[str, str]:
    """Returns the tag with the weights of the models that a step needs, by name."""
    digests = {name: _weights_digest(own.run) for name, own in needed.items()}
    return {TAG_NEEDS: json.dumps(digests, separators=(",", ":"))} if digests else {}


def former_needs(run: Run, needed: Mapping[str, Run]) -> list[str]:
    """Returns the names of the needed models that differ from those a run was made with.

    A teacher that is trained again, elsewhere or with another version of torch, has the same key
    but other weights. A run without the tag is older than the tag. It cannot have learnt from a run
    that ended after it began.
    """
    tag = run.data.tags.get(TAG_NEEDS)
    if tag is None:
        began = run.info.start_time
        return [name for name, own in needed.items() if began < (own.info.end_time or 0)]
    known: dict[str, str] = json.loads(tag)
    return [name for name, own in needed.items() if known.get(name) != _weights_digest(own)]


def _weights_digest(run: Run) -> str:
    return artifact_digests(run).get(WEIGHTS, "")


def state_digest(model: nn.Module) -> str:
    """Returns the SHA-256 of a model's weights: names, shapes, types and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        content = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(content.shape)} {content.dtype}\0".encode())
        digest.update(content.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
