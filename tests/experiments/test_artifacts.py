"""Files of runs in a remote store: fetched once, verified anew, dropped when read."""

from pathlib import Path
from typing import Any

import pytest

from kdplatform.experiments import artifacts
from kdplatform.experiments.artifacts import (
    artifact_path,
    digest_now,
    digests_now,
    drop_copy,
    fetch_ahead,
)

TABLE = "predictions/test.parquet"


class Bucket:
    """A remote store that holds texts by their whole path, and lists what was asked of it."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.asked: list[str] = []

    def _download_file(self, remote: str, local: str) -> None:
        self.asked.append(remote)
        if remote not in self.files:
            raise RuntimeError("NoSuchKey: no such key\nwith details")  # as boto3, of its own kind
        Path(local).write_text(self.files[remote])


@pytest.fixture
def bucket(new_place: Any, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    made, places = Bucket(), {}
    monkeypatch.setattr(artifacts, "_PLACES", places)
    for name in "abc":
        places[new_place.uri, name] = f"s3://bucket/1/{name}/artifacts"
        made.files[f"1/{name}/artifacts/{TABLE}"] = f"table of {name}"

    def repository(tracking_uri: str, place: str) -> Bucket:
        assert place == "s3://bucket"
        return made

    monkeypatch.setattr(artifacts, "_repository", repository)
    artifacts._copies.cache_clear()
    return made


def test_a_file_is_fetched_once_until_it_is_dropped(bucket: Bucket) -> None:
    assert artifact_path("a", TABLE).read_text() == "table of a"
    assert artifact_path("a", TABLE).read_text() == "table of a"
    assert len(bucket.asked) == 1
    drop_copy("a", TABLE)
    artifact_path("a", TABLE)
    assert len(bucket.asked) == 2


def test_files_fetched_ahead_are_there_and_what_is_missing_is_said_when_it_is_read(
    bucket: Bucket,
) -> None:
    fetch_ahead([("a", TABLE), ("b", TABLE), ("b", "none.json")])
    assert [artifact_path(run, TABLE).read_text() for run in "ab"] == ["table of a", "table of b"]
    assert len(bucket.asked) == 3
    with pytest.raises(OSError, match=r"^NoSuchKey: no such key$"):
        artifact_path("b", "none.json")


def test_a_digest_is_of_the_file_as_it_is_now(bucket: Bucket) -> None:
    first = digest_now("a", TABLE)
    bucket.files[f"1/a/artifacts/{TABLE}"] = "altered"
    assert digest_now("a", TABLE) != first
    assert artifact_path("a", TABLE).read_text() == "altered"


def test_of_the_verified_files_only_those_that_are_read_again_are_kept(bucket: Bucket) -> None:
    bucket.files["1/a/artifacts/weights.pt"] = "weights"
    found = digests_now([("a", TABLE), ("a", "weights.pt"), ("a", "none.json")])
    assert set(found) == {("a", TABLE), ("a", "weights.pt")}
    bucket.asked.clear()
    artifact_path("a", TABLE)
    assert bucket.asked == []
    artifact_path("a", "weights.pt")
    assert bucket.asked == ["1/a/artifacts/weights.pt"]


def test_a_path_does_not_leave_the_runs_folder(bucket: Bucket) -> None:
    with pytest.raises(FileNotFoundError):
        artifact_path("a", "../b/artifacts/" + TABLE)
    assert bucket.asked == []


def test_files_of_a_local_store_stay_where_they_are(new_place: Any) -> None:
    run = new_place.client.create_run("0")
    new_place.client.log_text(run.info.run_id, "text", "note.txt")
    path = artifact_path(run.info.run_id, "note.txt")
    drop_copy(run.info.run_id, "note.txt")
    assert path.read_text() == "text"
    with pytest.raises(FileNotFoundError):
        artifact_path(run.info.run_id, "none.txt")
