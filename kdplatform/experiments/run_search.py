"""Searches for runs in the tracking store by their tags."""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from kdplatform.experiments.artifacts import know_places, side_by_side

TAG_KEY = "kd.key"
# Rows per request of a listing; every listing continues to its end.
_PAGE = 1000
# The search for one key is a request that takes as long as reading two to four runs. For more keys
# than this, all runs of the project are read instead.
_MOST_KEYS = 500
_FINISHED = "attributes.status = 'FINISHED'"


def search_runs(filter_string: str) -> list[Run]:
    """Returns the runs of all experiments that match, the newest first."""
    return [run for page in run_pages(filter_string) for run in page]


def run_pages(filter_string: str, rows: int | None = None) -> Iterator[list[Run]]:
    """Yields the runs of all experiments that match, the newest first, page by page.

    Args:
        rows: number of runs on the first page; all others are as large as the store allows.
    """
    client, ids, token = MlflowClient(), _experiments(), None
    while ids:
        page = client.search_runs(
            ids,
            filter_string,
            max_results=rows or _PAGE,
            order_by=["attributes.start_time DESC"],
            page_token=token,
        )
        rows, token = None, page.token
        know_places(page)
        yield list(page)
        if not token:
            return


def runs_with_key(key: str) -> list[Run]:
    """Returns all runs with this key in any state, the newest first."""
    return search_runs(f"tags.`{TAG_KEY}` = '{key}'")


def finished_with_keys(keys: Collection[str], project: str) -> dict[str, list[Run]]:
    """Returns by key the FINISHED runs with these keys, the newest first.

    A store may have many other runs of the project, so keys are searched one by one, several in
    parallel.

    Args:
        project: project whose runs are read instead if there are very many keys. Runs that another
            project logged are then not found.
    """
    if len(keys) > _MOST_KEYS:
        runs = search_runs(models_of(project))
        return {key: own for key, own in by_key(runs).items() if key in keys}
    client, ids = MlflowClient(), _experiments()

    def find(key: str) -> list[Run]:
        return list(
            client.search_runs(
                ids,
                f"tags.`{TAG_KEY}` = '{key}' and {_FINISHED}",
                order_by=["attributes.start_time DESC"],
            )
        )

    found = dict(zip(keys, side_by_side(find, keys) if ids else (), strict=False))
    for runs in found.values():
        know_places(runs)
    return {key: runs for key, runs in found.items() if runs}


def models_of(project: str) -> str:
    """Returns the filter of the FINISHED runs of a project's models."""
    return f"tags.`kd.project` = '{project}' and tags.`{TAG_KEY}` LIKE '%' and {_FINISHED}"


def by_key(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Returns runs by their key, in the given order."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.data.tags[TAG_KEY], []).append(run)
    return found


def all_pages(page: Callable[[str | None], Any]) -> list[Any]:
    """Returns all entries of a listing, which the store gives page by page.

    Args:
        page: returns the page of a token; None is the token of the first page.
    """
    found: list[Any] = []
    token = None
    while True:
        entries = page(token)
        found += entries
        token = entries.token
        if not token:
            return found


def _experiments() -> list[str]:
    client = MlflowClient()

    def experiments(token: str | None) -> Any:
        return client.search_experiments(max_results=_PAGE, page_token=token)

    return [experiment.experiment_id for experiment in all_pages(experiments)]
