"""Datasets with groups: one file per dataset, one small protocol.

A dataset is a module of this package. Its name is the module's; it defines `Config`, a subclass of
`DatasetConfig` with the dataset's own fields, and `load(config, folder)`, which returns a
`Dataset` and keeps what it makes or downloads below `folder`. A module may have `check(config)`: it
raises at once what `load` would raise for files that are missing or of the wrong kind. A module
whose attributes are the same for every configuration names them in `KNOWN_ATTRIBUTES`. Settings are
read and checked before torch and pandas load, so a module imports these from `kdplatform.lazy`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from kdplatform.data._dataset import OUT_OF_THE_RUNNING, SEVERAL, Dataset, Inputs, Seen, Split
from kdplatform.data._facts import DataFacts, Interactions, Vocabulary
from kdplatform.data._imbalance import with_imbalance
from kdplatform.data._remarks import remarks
from kdplatform.data._streams import StreamedInputs
from kdplatform.data._unlabeled import with_hidden_labels
from kdplatform.errors import UserError, unknown_name
from kdplatform.settings.schema import DatasetConfig

__all__ = [
    "OUT_OF_THE_RUNNING",
    "SEVERAL",
    "DataFacts",
    "Dataset",
    "Inputs",
    "Interactions",
    "Seen",
    "Split",
    "StreamedInputs",
    "Vocabulary",
    "check_dataset",
    "dataset_config_class",
    "dataset_names",
    "load_dataset",
    "remarks",
    "unknown_attribute",
]


_NONE: Mapping[str, Sequence[str]] = {}


@cache
def dataset_names() -> tuple[str, ...]:
    """Returns the names of all datasets: the modules of this package."""
    modules = pkgutil.iter_modules(__path__)
    return tuple(sorted(m.name for m in modules if not m.name.startswith("_") and not m.ispkg))


def _module(name: str) -> Any:
    if name not in dataset_names():
        raise unknown_name("dataset.name", name, dataset_names())
    return importlib.import_module(f"{__name__}.{name}")


def dataset_config_class(name: str) -> type[DatasetConfig]:
    """Returns the configuration class of a dataset.

    Raises:
        UserError: there is no dataset of this name.
    """
    config_class: type[DatasetConfig] = _module(name).Config
    return config_class


def check_dataset(config: DatasetConfig, compared: Mapping[str, Sequence[str]] = _NONE) -> None:
    """Checks in a moment what the user's files show without torch and without reading all.

    Args:
        compared: attributes whose groups are to be compared, by the parameter that names them.

    Raises:
        UserError: files are missing, or of another kind than the configuration says; or an
            attribute does not exist, if that is known before the files are read.
    """
    module = _module(config.name)
    if hasattr(module, "check"):
        module.check(config)
    known = getattr(config, "attributes", getattr(module, "KNOWN_ATTRIBUTES", None))
    for parameter, attributes in compared.items():
        for attribute in attributes:
            if known is not None and attribute not in known:
                raise unknown_attribute(parameter, attribute, config.name, known)


def unknown_attribute(
    parameter: str, value: str, dataset: str, attributes: Sequence[str]
) -> UserError:
    """Returns the error for an attribute that a dataset does not have.

    Where the configuration says which columns are attributes, so does the error.
    """
    error = unknown_name(parameter, value, attributes or ["none"])
    if "attributes" not in dataset_config_class(dataset).model_fields:
        return error
    return UserError(f"{error}; dataset.attributes names the columns that are attributes")


def load_dataset(config: DatasetConfig, folder: Path) -> Dataset:
    """Loads a dataset, making or downloading it below `folder` when it is not there yet."""
    dataset: Dataset = _module(config.name).load(config, folder)
    if config.imbalance > 1:
        dataset = with_imbalance(dataset, config.imbalance, config.imbalance_seed)
    if config.unlabeled_fraction:
        return with_hidden_labels(dataset, config.unlabeled_fraction, config.unlabeled_seed)
    return dataset
