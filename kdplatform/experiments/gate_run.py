"""The gate in the run of a command: files, and tags for a registry."""

import json
from collections.abc import Mapping

import mlflow
from mlflow import MlflowClient

from kdplatform.files import scratch_folder
from kdplatform.reporting.gate_files import write_gate
from kdplatform.study.gates import JudgedGate
from kdplatform.study.study import Study

TAG = "kd.gate"
TAG_RULES = "kd.gate_rules"
FOLDER = "gate"


def log_gate(gate: JudgedGate, study: Study | None = None) -> None:
    """Logs a gate's files and outcome to the active run.

    Args:
        study: the runs of its distilled models get the outcome of their arm as a tag for a
            registry; None: no other run is tagged.
    """
    with scratch_folder() as folder:
        write_gate(gate, folder)
        mlflow.log_artifacts(str(folder), FOLDER)
    mlflow.set_tags(_tags(gate.outcome.value, gate))
    if study is None:
        return
    client = MlflowClient()
    for arm in study.distilled:
        for name, value in _tags(gate.arms[study.names[arm]].value, gate).items():
            for model in study.arms[arm].values():
                client.set_tag(model.run_id, name, value)


def _tags(outcome: str, gate: JudgedGate) -> Mapping[str, str]:
    date = gate.file.gates.date
    rules = {
        "file": gate.file.path.name,
        "sha256": gate.file.digest,
        "date": None if date is None else date.isoformat(),
    }
    return {TAG: outcome, TAG_RULES: json.dumps(rules, separators=(",", ":"))}
