"""Which classes got worse or better, by the same rule as for groups."""

import numpy as np
import numpy.typing as npt

from kdplatform.analysis.comparison import ClassComparison
from kdplatform.analysis.intervals import LEVEL
from kdplatform.predictions import FloatArray
from kdplatform.study.groups import BETTER, UNDECIDED, WORSE


def class_p_family(classes: ClassComparison) -> FloatArray:
    """The family-wise p of every class, for its verdict. [classes].

    It is that of the permutation of seeds if the number of seeds allows a p below .05, otherwise
    Holm's.
    """
    permutation = classes.permutation
    reaches = permutation is not None and 1 / permutation.splits < LEVEL
    return classes.table["p_max_t" if reaches else "p_holm"].to_numpy(dtype=float)


def class_verdicts(classes: ClassComparison) -> npt.NDArray[np.str_]:
    """Says of every class whether it is worse, better or undecided on side B. [classes].

    A class is decided if its family-wise p is below .05 and the interval of its change of accuracy
    excludes 0. Over seeds the p is that of the accuracy relative to the overall accuracy. The class
    must therefore change both by itself and relative to its model.
    """
    table, allowed = classes.table, class_p_family(classes) < LEVEL
    low, high = table["difference_low"].to_numpy(), table["difference_high"].to_numpy()
    return np.select([allowed & (low > 0), allowed & (high < 0)], [BETTER, WORSE], UNDECIDED)
