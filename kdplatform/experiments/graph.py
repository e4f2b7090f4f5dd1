"""The graph of a command: one step per model, with the steps that it needs and its key."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kdplatform.errors import UserError
from kdplatform.experiments.chosen_teachers import (
    ChosenTeacher,
    chosen_teachers,
    reference_teacher,
)
from kdplatform.experiments.weights import key_settings, named_by_field
from kdplatform.roles import Role
from kdplatform.settings.schema import (
    DistillationConfig,
    MethodConfig,
    ProjectConfig,
    TrainingConfig,
)

# Raised if a change of the code changes a step's numbers. Runs of the old code are then not reused.
STEP_VERSION = 2
# The needs of a distilled student: the teacher that it learns from, and the NDS that it is compared
# with.
TEACHER, STUDENT = Role.TEACHER.value, Role.STUDENT.value
# Several teachers are `teacher 1`, `teacher 2` and so on. Then follow a further model that a method
# uses, and the model that a method needs before its training.
REFERENCE, FIRST = "reference", "first"


@dataclass(frozen=True)
class Step:
    """One model to be trained: everything that decides its numbers, and its key.

    Attributes:
        needs: the steps whose models it uses, by name; any number and any names.
        distillation: how it learns from its teachers; None for a model without one.
        label: its name among several teachers; empty: the seed is enough.
    """

    role: Role
    seed: int
    training: TrainingConfig
    key: str
    distillation: DistillationConfig | None = None
    needs: Mapping[str, "Step"] = field(default_factory=dict)
    label: str = field(default="", compare=False)

    @property
    def teachers(self) -> dict[str, "Step"]:
        """The teachers that it learns from, by their names in the step."""
        return {k: own for k, own in self.needs.items() if k.partition(" ")[0] == TEACHER}

    @property
    def method(self) -> MethodConfig:
        """The method that the model is trained by."""
        return self.distillation or self.training.method

    @property
    def title(self) -> str:
        """The name of the step's run."""
        words = [self.role.label, "logits" if self.training.logits else self.training.model]
        if self.distillation is not None:
            words.append(method_title(self.distillation))
        return " ".join([*words, self.label or f"seed {self.seed}"])

    def within(self, project: ProjectConfig) -> ProjectConfig:
        """Returns the project with the training and distillation of this step."""
        section = "teacher" if self.role is Role.TEACHER else "student"
        changes: dict[str, object] = {section: self.training, "methods": ()}
        if self.distillation is not None:
            changes["distillation"] = self.distillation
        return project.model_copy(update=changes)


def method_title(method: MethodConfig) -> str:
    """Names a method with its temperature and weight, such as `kd T=4 alpha=0.8`."""
    temperature, alpha = method.softmax_temperature, method.distillation_weight
    words = [method.method]
    words += [] if temperature is None else [f"T={temperature:g}"]
    words += [] if alpha is None else [f"alpha={alpha:g}"]
    return " ".join(words)


def teacher_step(config: ProjectConfig, seed: int, dataset_digest: str) -> Step:
    """Returns the step that trains the teacher of a seed."""
    return _without_teacher(Role.TEACHER, config.teacher, seed, dataset_digest)


def student_step(config: ProjectConfig, seed: int, dataset_digest: str) -> Step:
    """Returns the step that trains the student without a teacher (NDS)."""
    return _without_teacher(Role.STUDENT, config.student, seed, dataset_digest)


def distilled_step(config: ProjectConfig, seed: int, dataset_digest: str) -> Step:
    """Returns the step that trains the student with its teacher (DS).

    It also needs the NDS, because the run's results include the comparison with it.
    """
    chosen = chosen_teachers(config, seed, dataset_digest)
    steps = [_teacher(own, dataset_digest, labelled=len(chosen) > 1) for own in chosen]
    needs = {STUDENT: student_step(config, seed, dataset_digest)}
    if len(steps) == 1:
        needs = {TEACHER: steps[0], **needs}
    else:
        needs |= {f"{TEACHER} {place}": step for place, step in enumerate(steps, start=1)}
        _check_different(chosen, steps)
    if entry := config.distillation.reference_teacher:
        asked = reference_teacher(config, entry, seed, dataset_digest)
        needs[REFERENCE] = _teacher(asked, dataset_digest, labelled=True)
    settings = {
        "training": _key_settings(Role.STUDENT, config.student, dataset_digest),
        "distillation": config.distillation.matters(),
        "seed": seed,
    }
    key = run_key(Role.DISTILLED, settings, dataset_digest, needs)
    return Step(Role.DISTILLED, seed, config.student, key, config.distillation, needs)


def _teacher(chosen: ChosenTeacher, dataset_digest: str, *, labelled: bool) -> Step:
    step = _without_teacher(Role.TEACHER, chosen.training, chosen.seed, dataset_digest)
    own = f"seed {chosen.seed}"
    return replace(step, label=chosen.label) if labelled and chosen.label != own else step


def logits_steps(config: ProjectConfig, dataset_digest: str) -> list[Step]:
    """Returns the steps of teachers that are files of logits."""
    chosen = chosen_teachers(config, 0, dataset_digest)
    return [_teacher(own, dataset_digest, labelled=True) for own in chosen]


def _check_different(chosen: Sequence[ChosenTeacher], steps: Sequence[Step]) -> None:
    """Refuses a teacher that occurs twice under two names.

    Raises:
        UserError: two teachers are the same model.
    """
    labels: dict[str, str] = {}
    for teacher, step in zip(chosen, steps, strict=True):
        if step.key in labels:
            raise UserError(
                f"distillation.teachers: {labels[step.key]} and {teacher.label} are the same "
                "model; allowed: each teacher once"
            )
        labels[step.key] = teacher.label


def _without_teacher(role: Role, training: TrainingConfig, seed: int, dataset_digest: str) -> Step:
    settings: dict[str, Any] = {"training": _key_settings(role, training, dataset_digest)}
    needs: dict[str, Step] = {}
    if not training.frozen:
        # A frozen model is the same for all seeds and methods.
        settings["seed"] = seed
        if training.method.method != "cross_entropy":
            settings["method"] = training.method.matters()
        if first := training.method.first_training(training):
            step = _without_teacher(role, first, seed, dataset_digest)
            needs[FIRST] = replace(step, label=f"first model of seed {seed}")
    return Step(role, seed, training, run_key(role, settings, dataset_digest, needs), needs=needs)


def _key_settings(role: Role, training: TrainingConfig, dataset_digest: str) -> dict[str, Any]:
    with named_by_field(role):
        return key_settings(training, dataset_digest)


def run_key(
    role: Role, settings: Mapping[str, Any], dataset_digest: str, needs: Mapping[str, Step]
) -> str:
    """Returns the key of a run: equal for equal steps on equal data, on every machine.

    Args:
        settings: the part of the configuration that matters to the step, as plain JSON values.
        needs: the steps whose models it uses.
    """
    content = {
        "role": role.value,
        "version": STEP_VERSION,
        "settings": settings,
        "dataset": dataset_digest,
        "needs": {name: step.key for name, step in needs.items()},
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def study_steps(
    config: ProjectConfig, dataset_digest: str, temperatures: Sequence[float] | None = None
) -> list[Step]:
    """Returns the steps of a study over temperatures and seeds, each once, with needed steps first.

    Every compared method has an arm at every temperature; a method without a temperature has one
    arm. Without temperatures there is only the arm of `distillation`.
    """
    methods = [config.distillation]
    if temperatures is not None:
        methods = [m for own in config.compared_methods for m in own.at_each(temperatures)]
    projects = [config.model_copy(update={"distillation": method}) for method in methods]
    distilled = [distilled_step(p, s, dataset_digest) for p in projects for s in config.seeds]
    return with_needs(distilled)


def arm_keys(steps: Iterable[Step]) -> set[str]:
    """Returns the keys of the steps that are compared with each other.

    The other steps are needed by these: several teachers of one student, or models that a method
    uses.
    """
    steps = list(steps)
    named = [(name, own.key) for step in steps for name, own in step.needs.items()]
    compared = {key for name, key in named if name in (TEACHER, STUDENT)}
    return {s.key for s in steps} - {key for _, key in named if key not in compared}


def with_needs(steps: Iterable[Step]) -> list[Step]:
    """Returns the steps and their needs, each once: teachers, then students, then the rest.

    Within that order a step comes after the steps it needs.
    """
    found: dict[str, Step] = {}

    def add(step: Step) -> None:
        for needed in step.needs.values():
            add(needed)
        found.setdefault(step.key, step)

    for step in steps:
        add(step)
    return sorted(found.values(), key=_depth)


def _depth(step: Step) -> tuple[int, int]:
    depth = 1 + max((_depth(needed)[0] for needed in step.needs.values()), default=0)
    return depth, list(Role).index(step.role)
