"""Runs found by what they say of themselves, beside others that are not read."""

from typing import Any

import pytest
from mlflow import MlflowClient

from kdplatform.experiments import run_search, study_runs
from kdplatform.settings.project import load_project

KEY = "0123456789abcdef"


def add_runs(place: Any, *runs: dict[str, str], project: str = "digits") -> list[str]:
    """Adds FINISHED runs of a project's models; returns their ids.

    Args:
        runs: the values of each, by `key`, `seed` and `temperature`.
    """
    made = []
    for values in runs:
        tags = {"kd.project": project, "kd.key": values.get("key", KEY), "kd.role": "distilled"}
        tags["kd.seed"] = values.get("seed", "0")
        run_id = place.client.create_run("0", tags=tags).info.run_id
        if "temperature" in values:
            place.client.log_param(run_id, "distillation.temperature", values["temperature"])
        place.client.set_terminated(run_id)
        made.append(run_id)
    return made


def test_a_listing_is_read_to_its_end(new_place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_search, "_PAGE", 2)
    tags = {"kd.key": KEY}
    experiments = [new_place.client.create_experiment(f"number {n}") for n in range(4)]
    made = [new_place.client.create_run(e, tags=tags) for e in experiments for _ in range(2)]
    found = run_search.runs_with_key(KEY)
    assert {run.info.run_id for run in found} == {run.info.run_id for run in made}


@pytest.mark.parametrize("most_keys", [500, 0])
def test_keys_are_found_one_by_one_and_among_all_runs(
    most_keys: int, new_place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_search, "_MOST_KEYS", most_keys)
    older, _, newer, _ = add_runs(new_place, *({"key": k} for k in ("a", "b", "a", "c")))
    unfinished = new_place.client.create_run("0", tags={"kd.key": "d", "kd.project": "digits"})
    assert unfinished.info.status == "RUNNING"
    found = run_search.finished_with_keys(["a", "c", "d", "e"], "digits")
    assert set(found) == {"a", "c"}
    assert {run.info.run_id for run in found["a"]} == {older, newer}


def test_few_keys_are_looked_for_without_reading_the_projects_other_runs(
    new_place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_runs(new_place, *({"key": str(number)} for number in range(9)))
    read = []
    search = MlflowClient.search_runs

    def counted(*arguments: Any, **named: Any) -> Any:
        page = search(*arguments, **named)
        read.extend(run.data.tags["kd.key"] for run in page)
        return page

    monkeypatch.setattr(MlflowClient, "search_runs", counted)
    run_search.finished_with_keys(["3", "5"], "digits")
    assert sorted(read) == ["3", "5"]


@pytest.mark.parametrize(("look", "most_excluded"), [(100, 40), (1, 40), (2, 3)])
def test_a_report_has_the_seeds_and_temperatures_of_all_runs(
    look: int, most_excluded: int, new_place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_runs, "_LOOK", look)
    monkeypatch.setattr(study_runs, "_MOST_EXCLUDED", most_excluded)
    values = [("0", "4.0"), ("7", "4.0"), ("8", "2.5"), ("9", "10"), ("0", "3.0"), ("7", "6.0")]
    add_runs(new_place, *({"seed": seed, "temperature": t} for seed, t in values))
    add_runs(new_place, {"seed": "99", "temperature": "99"}, project="another")
    project = load_project("digits", {"seeds": "0,1", "temperatures": "1,4"})
    found = study_runs.widened(project, set())
    assert found.seeds == (0, 1, 7, 8, 9)
    assert found.temperatures == (1, 2.5, 3, 4, 6, 10)
    assert study_runs.widened(project, {"seeds", "temperatures"}) == project
