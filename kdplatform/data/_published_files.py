"""What ImageNet and Tiny ImageNet share once their files and labels are known."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from kdplatform.data import Dataset
from kdplatform.data._image_files import (
    MEASURED_IMAGES,
    ImageFilesConfig,
    files_digest,
    pixels_digest,
    split_inputs,
)
from kdplatform.data._splits import Rows, assembled, hold_out, plain_examples


class PublishedFilesConfig(ImageFilesConfig):
    """Where the files lie, and how validation is held out of training."""

    val_fraction: float = Field(
        0.1, ge=0.01, le=0.5, description="share of every class's training images for validation"
    )
    seed: int = Field(0, ge=0, description="seed of the validation split")


class LabelledFiles(NamedTuple):
    """Image files relative to the dataset's root, and their labels. [files]."""

    files: list[str]
    labels: Rows


def published_dataset(
    config: PublishedFilesConfig,
    root: Path,
    train: LabelledFiles,
    test: LabelledFiles,
    *,
    class_names: Sequence[str],
    read_besides: Sequence[str] = (),
    folder: Path,
) -> Dataset:
    """Holds validation out of the training files and makes the dataset of all three splits.

    Ids count through the training files, then the test files.

    Args:
        read_besides: files that labels or names came from, for the digest.

    Raises:
        UserError: an image does not decode.
        MachineError: the cache of decoded images cannot be written.
    """
    files = [*train.files, *test.files]
    source = files_digest(root, [*read_besides, *files])
    known = plain_examples(train.labels, first_id=0)
    tested = plain_examples(test.labels, first_id=len(train.files))
    rest, held = hold_out(known.labels, config.val_fraction, config.seed)
    rows = {"train": rest, "val": held, "test": tested.ids}
    examples = {"train": known.at(rest), "val": known.at(held), "test": tested}
    inputs = split_inputs(config, root, files, rows, source_digest=source, folder=folder)
    splits = {name: (images, examples[name]) for name, images in inputs}
    return assembled(
        config,
        pixels_digest(config, source),
        splits,
        class_names=class_names,
        measured=MEASURED_IMAGES,
    )
