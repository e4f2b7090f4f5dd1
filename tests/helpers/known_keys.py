"""Keys that stay as they are."""

from collections.abc import Callable

from kdplatform.experiments.graph import Step, distilled_step, student_step, teacher_step
from kdplatform.settings.project import load_project
from kdplatform.settings.schema import ProjectConfig

STEPS: dict[str, Callable[[ProjectConfig, int, str], Step]] = {
    "teacher": teacher_step,
    "student": student_step,
    "distilled": distilled_step,
}
# Keys of the project digits on a dataset with the digest "digits". They may change together with
# STEP_VERSION, or with a value of projects/digits.yaml; a new method or a new field leaves them.
KNOWN_KEYS = {
    "teacher": "75d42a537a204c6c85f4d058726ddce4",
    "student": "1ee0645947240f329e686f3f1188ec0c",
    "distilled": "5f933da9a288914ea22e1be053e4f604",
}


def keys_of(config: ProjectConfig, seed: int = 0, digest: str = "digits") -> dict[str, str]:
    """Returns the keys of a project's teacher, student and distilled student."""
    return {role: make(config, seed, digest).key for role, make in STEPS.items()}


def digits_keys() -> dict[str, str]:
    """Returns the keys that `KNOWN_KEYS` says."""
    return keys_of(load_project("digits"))
