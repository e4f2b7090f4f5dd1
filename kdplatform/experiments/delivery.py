"""Delivery of trained models: registered under a name, exported to other formats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from kdplatform.arguments import Arguments
from kdplatform.errors import MachineError, UserError
from kdplatform.experiments.artifacts import log_artifacts_of
from kdplatform.experiments.gate_run import TAG as GATE_TAG
from kdplatform.experiments.onnx_export import FILE, export_onnx, require_onnx
from kdplatform.experiments.scheduler import Trained
from kdplatform.experiments.setting_words import settings_of
from kdplatform.experiments.starting import restored_model
from kdplatform.experiments.trained import TrainedModel
from kdplatform.experiments.workspace import Workspace
from kdplatform.files import scratch_folder
from kdplatform.reporting.cards.facts import CardFacts
from kdplatform.reporting.cards.hugging_face import card_body
from kdplatform.reporting.cards.short import run_card, version_card
from kdplatform.reporting.cards.sources import cards_of_study
from kdplatform.reporting.cards.write import FOLDER as CARDS
from kdplatform.reporting.cards.write import write_cards
from kdplatform.roles import Role
from kdplatform.settings.schema import ProjectConfig
from kdplatform.stores import reason_of
from kdplatform.study.metrics import ACCURACY, WORST_CLASS_ACCURACY
from kdplatform.study.study import Study

ONNX_FOLDER = "onnx"
TAG_ONNX = "kd.onnx"
# The role whose models a command delivers.
_ROLES = {"teacher": Role.TEACHER, "student": Role.STUDENT, "distill": Role.DISTILLED}
# The tags of its run that a registered model keeps.
_KEPT_TAGS = ("kd.key", "kd.project", "kd.role", "kd.seed", "kd.model", "kd.method", GATE_TAG)
_KEPT_METRICS = (ACCURACY, WORST_CLASS_ACCURACY)


@dataclass(frozen=True)
class Delivery:
    """The requested delivery of a command's models.

    Attributes:
        name: name of the registered model; None: models are not registered.
        export: `onnx`, or None.
    """

    name: str | None
    export: str | None

    @property
    def is_wanted(self) -> bool:
        """Whether anything is to be done."""
        return self.name is not None or self.export is not None

    @classmethod
    def checked(cls, arguments: Arguments) -> "Delivery":
        """Checks the request before anything is trained.

        Raises:
            UserError: a package of the export is missing.
        """
        if arguments.export == "onnx":
            require_onnx()
        return cls(arguments.register, arguments.export)


def deliver(
    workspace: Workspace,
    command: str,
    trained: Trained,
    delivery: Delivery,
    study: Study,
) -> list[str]:
    """Exports and registers the models of a command; returns a line for each.

    Args:
        study: all models of the command, from which a distilled student's card is made.

    Raises:
        UserError: a model cannot be exported, or was logged without its graph.
        MachineError: the registry refuses, or an exported model gives other logits.
    """
    models = trained.of_role(_ROLES[command]) if command in _ROLES else []
    lines = []
    if delivery.export == "onnx":
        lines += [_exported(workspace, model) for model in models]
    if delivery.name is not None:
        card = _card(workspace.config, study)
        if card is not None:
            for model in models:
                _log_card(model.run_id, card)
        body = [] if card is None else card_body(card)
        lines += [_registered(delivery.name, model, body) for model in models]
    return lines


def _exported(workspace: Workspace, model: TrainedModel) -> str:
    dataset = workspace.dataset
    network = restored_model(model.step, dataset, model.run_id)
    inputs = dataset.test.inputs[:]
    with scratch_folder() as folder:
        check = export_onnx(network, inputs, folder / FILE)
        log_artifacts_of(model.run_id, folder, ONNX_FOLDER)
        MlflowClient().set_tag(model.run_id, TAG_ONNX, f"{check.largest:.3g}")
    return (
        f"{model.step.title}: {ONNX_FOLDER}/{FILE} of run {model.run_id}; its logits are those of "
        f"torch within {check.largest:.2g} on {check.rows} examples"
    )


def _registered(name: str, model: TrainedModel, card: Sequence[str]) -> str:
    """Registers the model of a run as a version, unless it is registered already.

    Args:
        card: lines of the card for the version's description; empty: it is made from the run alone.
    """
    client = MlflowClient()
    run = client.get_run(model.run_id)
    data = run.data
    body = card or run_card(model.step.title, data.tags, data.params, data.metrics)
    outputs = run.outputs.model_outputs if run.outputs else []
    if not outputs:
        raise UserError(
            f"register={name!r}: run {model.run_id} has logged no model, only its weights; allowed:"
            " a model whose graph torch can export"
        )
    try:
        known = [v for v in _versions(client, name) if v.run_id == model.run_id]
        if known:
            version = known[0]
        else:
            version = mlflow.register_model(f"models:/{outputs[0].model_id}", name)
        client.update_model_version(name, version.version, version_card(model.run_id, body))
        for tag, value in _tags(run.data.tags, run.data.metrics).items():
            client.set_model_version_tag(name, version.version, tag, value)
    except MlflowException as error:
        raise MachineError(
            f"register={name!r}: the model registry refuses ({reason_of(error)}); allowed: a "
            "tracking store with a registry, such as sqlite:///mlflow.db or an MLflow server"
        ) from error
    again = " (registered before)" if known else ""
    return f"{model.step.title}: models:/{name}/{version.version}{again}"


def _card(config: ProjectConfig, study: Study) -> CardFacts | None:
    """Returns the facts of the command's students; None if it distilled none."""
    cards = cards_of_study(study, config.dataset.name, config.teacher.model, settings_of(config))
    return next(iter(cards.values()), None)


def _log_card(run_id: str, facts: CardFacts) -> None:
    with scratch_folder() as folder:
        write_cards(facts, folder)
        log_artifacts_of(run_id, folder, CARDS)


def _versions(
    client: MlflowClient, name: str
) -> Sequence[mlflow.entities.model_registry.ModelVersion]:
    quoted = name.replace("'", "''")
    found = client.search_model_versions(f"name = '{quoted}'")
    return sorted(found, key=lambda version: -int(version.version))


def _tags(tags: Mapping[str, str], metrics: Mapping[str, float]) -> dict[str, str]:
    """Returns the tags of a version: its origin, gate, accuracy and fairness."""
    kept = {name: tags[name] for name in _KEPT_TAGS if name in tags}
    numbers = {
        name: f"{value:.6g}"
        for name, value in metrics.items()
        if name in _KEPT_METRICS or name.startswith(("fairness/", "groupwise/", "classwise/"))
    }
    return kept | numbers
