"""Facts of datasets that need no dataset."""

from kdplatform.data import DataFacts


def image_facts(channels: int, side: int, num_classes: int) -> DataFacts:
    """Returns the facts of square images whose classes are named by their numbers."""
    return DataFacts((channels, side, side), tuple(map(str, range(num_classes))))
