"""How the models of a project are trained, in words for a report or a card."""

from kdplatform.settings.schema import DistillationConfig, ProjectConfig, TrainingConfig
from kdplatform.settings.words import plain_text


def settings_of(config: ProjectConfig) -> dict[str, str]:
    """Returns the settings of teacher, student and distillation in words, by name."""
    return {
        "Teacher": _teacher(config),
        "Student": _training(config.student),
        "Distillation": "; ".join(map(_distillation, config.compared_methods)),
    }


def _teacher(config: ProjectConfig) -> str:
    if named := config.distillation.teachers or config.teacher.logits:
        kind = "logits of" if config.teacher.logits else "teachers"
        return f"{kind} {plain_text(named)}" + ", together" * (len(named) > 1)
    shared = config.shared_teacher_seed
    seeds = "one per seed" if shared is None else f"seed {shared}"
    return f"{_training(config.teacher)}; {seeds}"


def _distillation(method: DistillationConfig) -> str:
    words = [method.method]
    if (alpha := method.distillation_weight) is not None:
        words.append(f"alpha {alpha:g} on the distillation term")
    if (scaled := getattr(method, "scale_by_t2", None)) is not None:
        words.append("with T²" if scaled else "without T²")
    return ", ".join(words)


def _training(training: TrainingConfig) -> str:
    start = "pretrained" if training.pretrained else "given weights" if training.weights else ""
    trained = "not trained here" if training.frozen else f"epochs: {training.epochs}"
    return ", ".join(filter(None, (training.model, start, trained)))
