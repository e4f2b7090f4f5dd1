"""The same project with absolute paths, so that it can be started from any folder."""

from kdplatform.files import user_path
from kdplatform.models.user_models import is_user_model, with_absolute_file
from kdplatform.settings.schema import ProjectConfig
from kdplatform.settings.teachers import absolute_entries


def with_absolute_paths(config: ProjectConfig) -> ProjectConfig:
    """Returns the same study with absolute paths, so that it can be started from any folder.

    The paths are those of data, weights and the user's own models.
    """
    dataset = config.dataset
    places = {
        name: str(user_path(f"dataset.{name}", value).resolve())
        for name in ("root", "file")
        if (value := getattr(dataset, name, ""))
    }
    update: dict[str, object] = {"dataset": dataset.model_copy(update=places)}
    for name, block in (("teacher", config.teacher), ("student", config.student)):
        weights = block.weights
        if weights is not None and (path := user_path(f"{name}.weights", weights)).exists():
            weights = str(path.resolve())
        own = with_absolute_file(block.model) if is_user_model(block.model) else block.model
        logits = tuple(str(user_path(f"{name}.logits", file).resolve()) for file in block.logits)
        own_places = {"weights": weights, "model": own, "logits": logits}
        update[name] = block.model_copy(update=own_places)
    update["distillation"] = config.distillation.model_copy(
        update={"teachers": absolute_entries(config.distillation.teachers)}
    )
    return config.model_copy(update=update)
