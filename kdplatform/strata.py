"""Classes by how often they occur, cut into strata of about equally many examples."""

from collections.abc import Sequence


def strata_by_frequency(counts: Sequence[int], strata: int) -> list[list[int]]:
    """Cuts classes, the most frequent first, into strata of about equally many examples.

    As UnKD (WSDM 2023, arXiv 2211.14729) cuts items by their interactions: a stratum is full once
    it has its share, and a last one with less than half a share joins the one before.

    Args:
        counts: examples of each class.
        strata: number of strata; fewer may come out.

    Returns:
        The numbers of the classes of each stratum.

    >>> strata_by_frequency([1, 6, 2, 3], 2)
    [[1], [3, 2, 0]]
    """
    quota = sum(counts) / strata
    order = sorted(range(len(counts)), key=lambda number: -counts[number])
    found: list[list[int]] = [[]]
    held = 0
    for number in order:
        if held >= quota:
            found.append([])
            held = 0
        found[-1].append(number)
        held += counts[number]
    if len(found) > 1 and held < quota / 2:
        last = found.pop()
        found[-1] += last
    return found


def stratum_name(number: int, strata: int) -> str:
    """Returns what a stratum is called, counted from 0: the first has the most frequent classes."""
    return f"{number + 1} of {strata}"
