"""The entry point `report`: the report of a study, from its runs in the tracking store alone.

The runs of a report are those with the keys of the project's configuration. Runs with another
alpha, dataset or training are never mixed in. Seeds and temperatures are those in the store, unless
they are given.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import mlflow
from mlflow.entities import Run

from kdplatform.analysis.tables import Attribute
from kdplatform.arguments import Arguments
from kdplatform.errors import UserError, unknown_name
from kdplatform.experiments import conditions
from kdplatform.experiments.artifacts import AT_ONCE, drop_copy, fetch_ahead
from kdplatform.experiments.commands import command_title
from kdplatform.experiments.comparison_run import source_of_run
from kdplatform.experiments.condition_results import condition_words
from kdplatform.experiments.ensembles import mixed, mixture_weights
from kdplatform.experiments.examples import stored_previews
from kdplatform.experiments.former_command import command_of
from kdplatform.experiments.gate_run import log_gate
from kdplatform.experiments.gates import checked_gate, enforce
from kdplatform.experiments.graph import Step, arm_keys
from kdplatform.experiments.results import arm_by, arm_of, by_role, log_group_counts
from kdplatform.experiments.setting_words import settings_of
from kdplatform.experiments.store_faults import store_errors
from kdplatform.experiments.stored_predictions import (
    TEST,
    calibrating_temperature,
    stored_test_predictions,
    table_of_test,
)
from kdplatform.experiments.study_runs import (
    dataset_digest,
    nothing_found,
    trained_steps,
    widened,
)
from kdplatform.experiments.tracking import (
    artifact_digests,
    begin_command,
    class_counts,
    class_names,
    command_run,
    quiet_mlflow,
)
from kdplatform.experiments.trained import former_needs
from kdplatform.files import home_folder, place_of_folder, writable_folder
from kdplatform.progress import say, show
from kdplatform.reporting.cards.sources import cards_of_study
from kdplatform.reporting.cards.write import FOLDER as CARDS
from kdplatform.reporting.cards.write import write_cards
from kdplatform.reporting.findings_text import led_by_findings
from kdplatform.reporting.gallery import Shown
from kdplatform.reporting.gate_files import write_gate
from kdplatform.reporting.pairs import usual_arm
from kdplatform.reporting.study_page import (
    PAGE,
    Report,
    build_report,
    claim_sentence,
    write_report,
)
from kdplatform.roles import Role
from kdplatform.settings.schema import ConditionConfig, ProjectConfig
from kdplatform.stores import absolute_uri, told_apart
from kdplatform.study.claims import Claim
from kdplatform.study.classes import ClassWise
from kdplatform.study.gate_metrics import gate_metrics
from kdplatform.study.gates import JudgedGate, judge_gate
from kdplatform.study.metrics import (
    REFERENCES,
    SPEED,
    Similarity,
    condition_metric,
    similarity,
)
from kdplatform.study.provenance import Provenance
from kdplatform.study.ranking import Ranked
from kdplatform.study.study import (
    NDS,
    TEACHER,
    Arm,
    Model,
    Study,
    scored_model,
)
from kdplatform.study.verdicts import Verdict

_MOST_PRINTED = 10


def run_report(config: ProjectConfig, arguments: Arguments) -> None:
    """Builds the report under a run of its own, logs it and writes it to a folder."""
    started = time.perf_counter()
    quiet_mlflow()
    begin_command()
    folder = arguments.out or home_folder() / "reports" / _place(config)
    writable_folder("out", place_of_folder("out", folder))
    compared = _with_pairs(config.attributes, arguments.intersections)
    rules = checked_gate(arguments.gate, compared)
    given = set(arguments.overrides)
    if arguments.run is not None:
        config, given = _as_it_was_run(arguments.run, config), {*given, "seeds", "temperatures"}
    with store_errors():
        study = load_study(config, given, arguments.intersections, arguments.condition)
        report = build_report(study, previews=_previews(study))
        written = write_report(report, folder, formats=arguments.formats)
        gate = None
        if rules is not None:
            known = gate_metrics(compared, REFERENCES)
            gate = judge_gate(rules, study, ClassWise(study), known)
            written += write_gate(gate, folder)
        if arguments.card:
            _write_cards(config, study, gate, folder / CARDS)
        tags = {} if arguments.run is None else {"kd.reported_run": arguments.run}
        title = command_title("report", _of_study(config, study))
        with command_run("report", config, title, tags) as run_id:
            for path in written:
                mlflow.log_artifact(str(path), "report")
            mlflow.log_metrics(_tally(report))
            if report.groups is not None:
                log_group_counts(report.groups)
            if arguments.card:
                mlflow.log_artifacts(str(folder / CARDS), CARDS)
            if gate is not None:
                log_gate(gate)
    show(f"\n{report_text(report)}\n\nread it: {folder / PAGE}\nrun {run_id}")
    say(f"report: {time.perf_counter() - started:.0f} s")
    enforce(gate)


def _write_cards(
    config: ProjectConfig, study: Study, gate: JudgedGate | None, folder: Path
) -> None:
    """Writes the cards of every distilled arm: to the folder, or to a subfolder for each arm."""
    cards = cards_of_study(
        study,
        config.dataset.name,
        config.teacher.model,
        study.settings,
        _provenance(study, gate),
    )
    if not cards:
        say("card: there is neither a teacher nor an NDS to compare students with; none is written")
    for facts in cards.values():
        write_cards(facts, folder if len(cards) == 1 else folder / facts.slug)


def _provenance(study: Study, gate: JudgedGate | None) -> dict[Arm, Provenance]:
    """Returns the sources of each arm's card: the runs of the arm and of its reference.

    The verdict is the gate's, if there is one.
    """
    reference = TEACHER if TEACHER in study.arms else NDS
    sources = {
        arm: [source_of_run(model.run_id) for _, model in sorted(study.arms.get(arm, {}).items())]
        for arm in (reference, *study.distilled)
    }
    return {
        arm: Provenance(
            (sources[reference], sources[arm]),
            study.any_table.digest,
            gate.arms[study.names[arm]].value if gate else "no gate was given",
            gate,
        )
        for arm in study.distilled
    }


def _as_it_was_run(run_id: str, config: ProjectConfig) -> ProjectConfig:
    """Returns the configuration of a command's run, restricted to what that command trained."""
    if command_of(run_id) == "sweep":
        return config
    single = config.distillation.softmax_temperature
    temperatures = config.temperatures if single is None else (single,)
    return config.model_copy(update={"temperatures": temperatures, "methods": ()})


def _of_study(config: ProjectConfig, study: Study) -> ProjectConfig:
    """Returns the configuration with the seeds and temperatures that a study has."""
    found = sorted({arm.temperature for arm in study.distilled if arm.temperature is not None})
    return config.model_copy(update={"seeds": study.all_seeds, "temperatures": tuple(found)})


def _previews(study: Study) -> dict[str, Shown]:
    """Returns the logged examples of the arm that the page shows first."""
    return stored_previews(model.run_id for model in study.arms[usual_arm(study)].values())


def _place(config: ProjectConfig) -> str:
    """Returns the name of a report's folder, which differs between projects, data and stores."""
    store = absolute_uri(mlflow.get_tracking_uri())
    return told_apart(config.name, config.dataset.model_dump_json(), store)


def report_text(report: Report) -> str:
    """Returns the printed text: findings, missing models, and decided claims.

    Everything else is on the page, because a study of many methods has hundreds of verdicts.
    """
    parts = [
        "\n".join([report.page.subtitle, *report.gaps]),
        _verdicts_text("The paper's claims", report.claims),
        _verdicts_text("Methods against plain distillation", report.of_methods),
    ]
    return led_by_findings(report.findings, "\n\n".join(filter(None, parts)))


def _verdicts_text(title: str, claims: Sequence[Claim]) -> str:
    """Counts verdicts, and lists the first decided ones; empty without verdicts."""
    if not claims:
        return ""
    tally = Counter(claim.verdict for claim in claims)
    counts = ", ".join(f"{tally[verdict]} {verdict}" for verdict in Verdict)
    decided = [claim for claim in claims if claim.verdict is not Verdict.UNDECIDED]
    lines = [f"- {claim_sentence(claim)}" for claim in decided[:_MOST_PRINTED]]
    if more := len(decided) - len(lines):
        lines.append(f"- {more} further decided verdicts are on the page.")
    return "\n".join([f"{title}: {counts}.", *lines])


def _tally(report: Report) -> dict[str, float]:
    return {
        f"claims/{verdict}": sum(claim.verdict is verdict for claim in report.claims)
        for verdict in Verdict
    }


def load_study(
    config: ProjectConfig,
    given: Iterable[str] = (),
    intersections: bool = True,
    condition: str = "",
) -> Study:
    """Reads the study of a configuration from the tracking store.

    Args:
        given: names of the given fields. Given `seeds` and `temperatures` are kept; otherwise the
            report uses all that the store has of this configuration.
        intersections: whether pairs of attributes are compared too.
        condition: condition of the predictions; empty: the unchanged test split.

    Raises:
        UserError: there is no distilled student of this configuration, an attribute is unknown, or
            runs hold different examples.
    """
    digest, others = dataset_digest(config)
    found = trained_steps(widened(config, set(given)), digest)
    if not any(step.role is Role.DISTILLED for step, _ in found):
        raise UserError(nothing_found(config))
    if condition:
        _check_condition(condition, [run for _, runs in found for run in runs])
    reader = _Reader(config, arm_keys(step for step, _ in found), condition)
    # Fetched in groups, because the tables of a large study do not fit into memory.
    for start in range(0, len(found), AT_ONCE):
        reader.fetch(found[start : start + AT_ONCE])
        for step, candidates in found[start : start + AT_ONCE]:
            reader.read(step, candidates)
    reader.add_together()
    if not any(arm.role is Role.DISTILLED for arm in reader.arms):
        raise UserError(
            f"project={config.name!r}: no distilled run can be used ({reader.left_out[0]}); allowed"
            ": at least one whose predictions are as they were logged"
        )
    used = sum(len(models) for models in reader.arms.values())
    return Study(
        name=f"{config.name} under {condition}" if condition else config.name,
        class_names=reader.class_names(),
        arms=by_role(reader.arms),
        attributes=_attributes(config, reader.columns(), intersections),
        min_group_size=config.min_group_size,
        shared_teacher=config.shared_teacher_seed,
        missing=_missing(config, reader.arms, set(given)),
        left_out=(*reader.left_out, *others),
        settings=_settings(config, digest, used) | reader.condition_setting,
        scale_by_t2=all(getattr(own, "scale_by_t2", True) for own in config.compared_methods),
        space=reader.similar.pairs.space.name if reader.similar else "",
        pairs=len(reader.similar.pairs.first) if reader.similar else 0,
    )


# ---- which runs


def _check_condition(condition: str, runs: Sequence[Run]) -> None:
    """Refuses a condition that none of a study's runs was measured under."""
    there = dict.fromkeys(name for run in runs for name in conditions.settings_of(run))
    if condition not in there:
        raise unknown_name("condition", condition, ["clean", *there])


def _missing(
    config: ProjectConfig, arms: Mapping[Arm, Mapping[int, Model]], given: set[str]
) -> tuple[str, ...]:
    """Names the models that the study should have: every method and temperature for every seed.

    Without given temperatures they are those of any run.
    """
    students = [models for arm, models in arms.items() if arm != TEACHER]
    seeds = set(config.seeds).union(*students)
    temperatures = {arm.temperature for arm in arms if arm.temperature is not None}
    if "temperatures" in given:
        temperatures |= set(config.temperatures)
    shared = config.shared_teacher_seed
    expected = {TEACHER: seeds if shared is None else {shared}, NDS: seeds}
    for method in config.compared_methods:
        expected |= {arm_by(own): seeds for own in method.at_each(sorted(temperatures))}
    absent: dict[str, list[Arm]] = {}
    for arm, wanted in expected.items():
        lacking = sorted(wanted - set(arms.get(arm, {})))
        if lacking:
            listed = f"seed {', '.join(map(str, lacking))}"
            words = "every seed" if len(lacking) == len(wanted) > 1 else listed
            absent.setdefault(words, []).append(arm)
    several = len(config.compared_methods) > 1
    return tuple(f"{_names(arms, several)}: {words}" for words, arms in absent.items())


def _names(arms: Sequence[Arm], with_method: bool) -> str:
    """Names arms: `Teacher, DS T=2, 3`; with their methods `DS kd T=2, 3, DS cist`."""
    words: list[str] = []
    last = None
    for arm in arms:
        follows = last is not None and (last.method, last.role) == (arm.method, arm.role)
        further = follows and arm.temperature is not None
        words.append(f"{arm.temperature:g}" if further else arm.title(with_method=with_method))
        last = arm
    return ", ".join(words)


# ---- what is in them


class _Reader:
    """Reads the models of a study, one after another; their logits are not kept."""

    def __init__(self, config: ProjectConfig, compared: set[str], condition: str = "") -> None:
        self._config, self._compared, self._condition = config, compared, condition
        # The project's value, or else that of the first run with one.
        self._conditions = {n: own.matters() for n, own in config.evaluation.conditions.items()}
        self.similar: Similarity | None = None
        self._names: tuple[str, ...] = ()
        self._counts: tuple[int, ...] = ()
        self._examples: tuple[str, str] | None = None
        self.arms: dict[Arm, dict[int, Model]] = {}
        self.left_out: list[str] = []
        self._read: dict[str, Run] = {}
        self._students: list[Step] = []

    def columns(self) -> list[str]:
        """The columns of the tables beside predictions."""
        first = next(iter(next(iter(self.arms.values())).values()))
        return [str(name) for name in first.test.columns]

    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, or their numbers if no run logged names."""
        models = [model for models in self.arms.values() for model in models.values()]
        number = max(model.test.n_classes for model in models)
        named = self._names[:number] if len(self._names) >= number else ()
        return self._names if named else tuple(map(str, range(number)))

    def fetch(self, steps: Iterable[tuple[Step, Sequence[Run]]]) -> None:
        """Fetches the predictions of the newest runs of steps from a remote store, in parallel."""
        table = table_of_test(self._condition)
        fetch_ahead(
            (runs[0].info.run_id, table) for step, runs in steps if step.key in self._compared
        )

    def read(self, step: Step, candidates: Sequence[Run]) -> None:
        """Reads the newest of a step's runs with unaltered predictions.

        A student of a former teacher, which has been trained again since then, is left out.
        """
        needed = {n: self._read[own.key] for n, own in step.needs.items() if own.key in self._read}
        for run in candidates:
            try:
                if former := former_needs(run, needed):
                    raise ValueError(f"it was made with a former {' and '.join(former)}")
                if step.key not in self._compared or (step.training.logits and not _has_test(run)):
                    self._read[step.key] = run
                    return
                model = self._model(run)
                self._read[step.key] = run
                if len(step.teachers) > 1:
                    self._students.append(step)
                self.arms.setdefault(arm_of(step), {})[step.seed] = model
                return
            except ValueError as error:
                self.left_out.append(f"{step.title}, run {run.info.run_id}: {error}")

    def add_together(self) -> None:
        """Adds the mixture of several teachers as one teacher, if all of them exist."""
        together = self.arms.setdefault(TEACHER, {})
        for step in self._students:
            seed = self._config.teacher_seed(step.seed)
            runs = [self._read.get(own.key) for own in step.teachers.values()]
            if seed not in together and all(run is not None and _has_test(run) for run in runs):
                try:
                    tables = [
                        stored_test_predictions(run, self._condition)
                        for run in runs
                        if run is not None
                    ]
                except ValueError as error:
                    self.left_out.append(f"teachers of {step.title}: {error}")
                    continue
                test = mixed(tables, mixture_weights(step))
                together[seed] = scored_model("", test, similar=self.similar)
        if not together:
            del self.arms[TEACHER]

    @property
    def condition_setting(self) -> dict[str, str]:
        """The condition's settings, for the reader of a report under it."""
        if not self._condition:
            return {}
        own = ConditionConfig.model_validate(self._conditions[self._condition])
        return {"Condition": f"{self._condition}: {condition_words(own)}"}

    def _of_conditions(self, run: Run) -> dict[str, float]:
        """Returns a run's metrics of the conditions whose settings equal those of the other runs.

        Raises:
            ValueError: the settings of the reported condition differ.
        """
        names = []
        for name, settings in conditions.settings_of(run).items():
            if self._conditions.setdefault(name, settings) == settings:
                names.append(name)
            elif name == self._condition:
                raise ValueError(f"it was measured under {name} of other settings")
        if self._condition:
            return {}
        prefixes = tuple(condition_metric(name, "") for name in names)
        return {k: v for k, v in run.data.metrics.items() if prefixes and k.startswith(prefixes)}

    def _model(self, run: Run) -> Model:
        under = self._of_conditions(run)
        test = stored_test_predictions(run, self._condition)
        drop_copy(run.info.run_id, table_of_test(self._condition))
        self._check_examples(run, test.digest)
        if self.similar is None:
            self.similar = similarity(test, self._config.dataset.name, neighbours=True)
        if not self._names:
            self._names = class_names(run)
        if not self._counts:
            self._counts = class_counts(run)
        config = self._config
        ranked = Ranked(self._counts, config.attributes, config.min_group_size)
        model = scored_model(
            run.info.run_id, test, calibrating_temperature(run), self.similar, ranked
        )
        speed = run.data.metrics.get(SPEED)
        under |= {} if speed is None else {SPEED: speed}
        return replace(model, scores={**model.scores, **under})

    def _check_examples(self, run: Run, digest: str) -> None:
        first_run, first = self._examples = self._examples or (run.info.run_id, digest)
        if digest != first:
            raise UserError(
                f"project={self._config.name!r}: run {first_run} holds examples of digest {first},"
                f" run {run.info.run_id} of {digest}; allowed: runs of one dataset and split"
            )


def _has_test(run: Run) -> bool:
    return TEST in artifact_digests(run)


def _attributes(
    config: ProjectConfig, known: Sequence[str], intersections: bool
) -> tuple[Attribute, ...]:
    for attribute in config.attributes:
        if attribute not in known:
            raise unknown_name("attributes", attribute, known or ["none"])
    return _with_pairs(config.attributes, intersections)


def _with_pairs(attributes: Sequence[str], intersections: bool) -> tuple[Attribute, ...]:
    pairs = tuple(combinations(attributes, 2)) if intersections else ()
    return (*attributes, *pairs)


def _settings(config: ProjectConfig, digest: str, used: int) -> dict[str, str]:
    return {
        "Data": f"{config.dataset.name}, digest {digest[:12]}, test split",
        **settings_of(config),
        "Runs": f"{used} used; runs of other settings, and replaced ones, are not counted",
    }
