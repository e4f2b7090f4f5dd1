"""Per-example predictions: one schema, saved as Parquet.

A prediction table has one row per example: `id`, `label`, `prediction`, `logits` (float32, one per
class), and every further column the split carries, among them one per attribute.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from kdplatform.data import Split
from kdplatform.errors import DivergedError
from kdplatform.files import written_atomically

COLUMNS = ("id", "label", "prediction", "logits")


def prediction_table(split: Split, logits: Tensor) -> pd.DataFrame:
    """Returns the predictions of one model on one split.

    Args:
        logits: float32 [N, classes], in the order of the split; the prediction is the largest.

    Raises:
        DivergedError: a logit is NaN or infinite; such a model predicts nothing.
    """
    values = logits.detach().cpu().float().numpy()
    if not np.isfinite(values).all():
        raise DivergedError(
            "the trained model's logits are NaN or infinite; "
            "try a lower learning rate, a warm-up or gradient clipping"
        )
    table = pd.DataFrame(
        {
            "id": split.ids,
            "label": split.labels.cpu().numpy(),
            "prediction": values.argmax(axis=1).astype(np.int64),
            "logits": list(values),
        }
    )
    return pd.concat([table, split.columns.reset_index(drop=True)], axis=1)


def save_predictions(path: Path, table: pd.DataFrame) -> None:
    """Writes a prediction table; logits become a list column of fixed length."""
    logits = np.stack(table["logits"].to_list())
    arrow = pa.Table.from_pandas(table.drop(columns="logits"), preserve_index=False)
    column = pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), logits.shape[1])
    arrow = arrow.add_column(COLUMNS.index("logits"), "logits", column)
    with written_atomically(path) as temporary:
        pq.write_table(arrow, temporary)


def load_predictions(path: Path) -> pd.DataFrame:
    """Reads what `save_predictions` wrote."""
    return pd.read_parquet(path)
