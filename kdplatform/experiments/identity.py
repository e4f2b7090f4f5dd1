"""What makes two runs the same run: roles, steps and their keys."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdplatform.config import DistillationConfig, ProjectConfig, TrainingConfig
from kdplatform.experiments.weights import key_settings
from kdplatform.roles import Role

# Raised when a change of the code changes the numbers a step produces, so that runs of the old
# code are not taken for runs of the new.
STEP_VERSION = 1


def run_key(
    role: Role, settings: Mapping[str, Any], dataset_digest: str, depends_on: Sequence[str] = ()
) -> str:
    """Returns the key of a run: equal for equal steps on equal data, on every machine.

    Args:
        settings: the part of the configuration that matters to the step, as plain JSON values.
        depends_on: keys of the runs whose results the step uses.
    """
    content = {
        "role": role.value,
        "version": STEP_VERSION,
        "settings": settings,
        "dataset": dataset_digest,
        "depends_on": list(depends_on),
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Step:
    """One model to be trained: everything that decides its numbers, and its key."""

    role: Role
    seed: int
    training: TrainingConfig
    key: str
    distillation: DistillationConfig | None = None

    @property
    def title(self) -> str:
        """The name of the step's run."""
        if self.distillation is None:
            return f"{self.role.label} {self.training.model} seed {self.seed}"
        return (
            f"DS {self.training.model} T={self.distillation.temperature:g} "
            f"alpha={self.distillation.alpha:g} seed {self.seed}"
        )


def teacher_step(config: ProjectConfig, seed: int, dataset_digest: str) -> Step:
    """Returns the step that trains the teacher of a seed."""
    return _plain_step(Role.TEACHER, config.teacher, seed, dataset_digest)


def student_step(config: ProjectConfig, seed: int, dataset_digest: str) -> Step:
    """Returns the step that trains the student on hard labels alone (NDS)."""
    return _plain_step(Role.STUDENT, config.student, seed, dataset_digest)


def distilled_step(config: ProjectConfig, seed: int, dataset_digest: str) -> Step:
    """Returns the step that trains the student with its teacher (DS).

    It depends on the NDS too: the comparison with it is among the run's results.
    """
    distillation = config.distillation
    # Which teacher is meant stands in the keys depended on, not in how it was asked for.
    matters = distillation.model_dump(mode="json", exclude={"teacher_seed"})
    settings = {
        "training": key_settings(config.student),
        "distillation": matters,
        "seed": seed,
    }
    depends_on = [
        teacher_step(config, teacher_seed(config, seed), dataset_digest).key,
        student_step(config, seed, dataset_digest).key,
    ]
    key = run_key(Role.DISTILLED, settings, dataset_digest, depends_on)
    return Step(Role.DISTILLED, seed, config.student, key, distillation)


def teacher_seed(config: ProjectConfig, seed: int) -> int:
    """Returns the seed of the teacher that the students of `seed` learn from."""
    shared = config.shared_teacher_seed
    return seed if shared is None else shared


def _plain_step(role: Role, training: TrainingConfig, seed: int, dataset_digest: str) -> Step:
    settings: dict[str, Any] = {"training": key_settings(training)}
    # A frozen model is the same whatever the seed.
    settings |= {} if training.frozen else {"seed": seed}
    return Step(role, seed, training, run_key(role, settings, dataset_digest))
