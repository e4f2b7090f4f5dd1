"""What a study is kept in, where Optuna alone would not be enough."""

from collections import Counter

import optuna
import pytest
from optuna.trial import Trial

from kdplatform.tuning.storage import open_storage, quiet_optuna

STUDIES, QUEUED, THREADS = 12, 8, 4


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_no_two_threads_take_the_same_waiting_trial(kind: str, url: str) -> None:
    """Optuna alone lets them on SQLite, in about three studies of ten such as these."""
    with quiet_optuna():
        kept = open_storage(url if kind == "sqlite" else url.replace("sqlite", "journal"))
        for number in range(STUDIES):
            study = optuna.create_study(storage=kept, study_name=str(number))
            for x in range(QUEUED):
                study.enqueue_trial({"x": float(x)})
            taken: Counter[int] = Counter()

            def value(trial: Trial, taken: Counter[int] = taken) -> float:
                taken[trial.number] += 1
                return trial.suggest_float("x", 0, 10)

            study.optimize(value, n_trials=2 * QUEUED, n_jobs=THREADS)
            assert taken == Counter(range(2 * QUEUED))
            assert [t.params["x"] for t in study.trials[:QUEUED]] == list(range(QUEUED))
