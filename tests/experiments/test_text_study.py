"""A study whose inputs are token ids, from files to tables."""

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from helpers.hatexplain_files import post, write_posts
from helpers.published_weights import publish_text_model, put_in_hub_cache
from huggingface_hub import constants

from kdplatform import downloads
from kdplatform.data import load_dataset
from kdplatform.models import bert, build_model
from kdplatform.settings.project import load_project

SMALLEST = {
    "num_hidden_layers": 1,
    "hidden_size": 8,
    "num_attention_heads": 1,
    "intermediate_size": 8,
}
COMMUNITIES = (["None"], ["Arab"], ["Asian", "Arab"], ["Asian"])
PROJECT = """\
name: texts
dataset: {{name: hatexplain, root: {root}, vocabulary_size: 100}}
teacher: {{model: bert_mini, epochs: 1, batch_size: 16, learning_rate: 0.1}}
student: {{model: bert_tiny, epochs: 1, batch_size: 16, learning_rate: 0.1}}
distillation: {{temperature: 4}}
temperatures: 4
attributes: race
"""


def write_study(folder: Path) -> None:
    posts: dict[str, Any] = {}
    divisions: dict[str, list[str]] = {}
    for split, count in (("train", 24), ("val", 8), ("test", 16)):
        divisions[split] = [f"{split}{number}" for number in range(count)]
        for number, name in enumerate(divisions[split]):
            label = ("normal", "hatespeech")[number % 2]
            target = COMMUNITIES[number // 2 % 4]
            tokens = ["kind" if label == "normal" else "rude", "words", str(number)]
            posts[name] = post(name, [label] * 3, [target] * 3, tokens)
    write_posts(folder, posts, divisions)


@pytest.fixture
def place(new_place: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    write_study(new_place.folder)
    Path(new_place.project).write_text(PROJECT.format(root=new_place.folder))
    for name in ("bert_tiny", "bert_mini", "bert_base"):
        monkeypatch.setitem(bert.KINDS, name, (bert.BERT, SMALLEST))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(new_place.folder / "hub"))
    return new_place


def test_texts_are_distilled_logged_and_measured(place: Any, spared: None) -> None:
    assert place.run("distill") == 0
    (run,) = place.runs("distilled", "FINISHED")
    logged = json.loads(place.artifact(run, "groups.json").read_text())
    groups = [dict(zip(logged["columns"], row, strict=True)) for row in logged["data"]]
    assert [(g["group"], g["n"], g["shared"]) for g in groups] == [("Arab", 8, 4), ("Asian", 8, 4)]
    # Posts about nobody count for accuracy all the same.
    table = place.predictions(run)
    assert len(table) == 16
    right = (table["label"] == table["prediction"]).mean()
    assert run.data.metrics["test/accuracy"] == pytest.approx(right)


def test_the_logged_model_takes_token_ids_of_any_number_of_texts(place: Any) -> None:
    assert place.run("student") == 0
    (run,) = place.runs("student")
    model = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/student")
    (inputs,) = model.metadata.signature.inputs.inputs
    test = load_dataset(load_project(place.project).dataset, place.home / "datasets").test
    assert (inputs.type, inputs.shape) == (np.dtype("int64"), (-1, test.inputs.shape[1]))
    said = model.predict(test.inputs[:5].numpy())
    expected = np.stack(place.predictions(run)["logits"].to_list())[:5]
    np.testing.assert_allclose(said, expected, rtol=1e-3, atol=1e-4)


PRETRAINED = {"teacher__model": "bert_base", "teacher__pretrained": "true"}


def test_published_weights_go_with_their_own_tokenizer(
    place: Any, spared: None, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = load_dataset(load_project(place.project).dataset, place.home / "datasets")
    (vocabulary,) = (place.home / "datasets" / "hatexplain").glob("vocabulary-*.json")
    hub = place.folder / "hub"
    path = put_in_hub_cache(hub, "bert-base-uncased", "tokenizer.json")
    path.write_text(vocabulary.read_text())
    model = build_model("bert_base", dataset.facts())
    publish_text_model(hub, "google-bert/bert-base-uncased", model)

    assert place.run("teacher", **PRETRAINED) == 2
    assert "dataset.tokenizer='trained' does not fit model='bert_base'" in capsys.readouterr().err
    assert place.run("teacher", **PRETRAINED, dataset__tokenizer="bert-base-uncased") == 0
    assert "the head is new" in capsys.readouterr().err
    # A head that nobody has trained is no teacher as it is.
    frozen = {"teacher__frozen": "true", "dataset__tokenizer": "bert-base-uncased"}
    assert place.run("teacher", **PRETRAINED, **frozen) == 2
    assert "network.classifier.weight" in capsys.readouterr().err


def test_a_silent_hub_is_the_machines_fault(
    place: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert place.run("teacher", dataset__tokenizer="bert-base-uncased") == 1
    assert "tokenizer.json of bert-base-uncased" in capsys.readouterr().err.splitlines()[-1]
