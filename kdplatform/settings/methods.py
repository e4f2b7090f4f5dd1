"""Which method a name stands for, and what a project's methods take."""

from kdplatform.errors import UserError, unknown_name
from kdplatform.methods import method_config_classes, method_names
from kdplatform.methods._groups import CLASSES, column_of, grouped_by_project, grouping
from kdplatform.settings.schema import DistillationConfig, MethodConfig, ProjectConfig

# What says which teachers a student has, whatever the method.
SHARED_FIELDS = frozenset(DistillationConfig.model_fields) - {"method"}


def method_class(parameter: str, name: str, *, distils: bool) -> type[MethodConfig]:
    """Returns the configuration class of a method that needs a teacher, or of one that needs none.

    Raises:
        UserError: there is no such method, or it is one of the other kind.
    """
    own = method_config_classes(name) if name in method_names() else {}
    if distils in own:
        return own[distils]
    known = [n for n in method_names() if distils in method_config_classes(n)]
    if own:
        kind = "learns from a teacher" if not distils else "needs no teacher"
        raise UserError(f"{parameter}={name!r} {kind}; allowed: {', '.join(known)}")
    raise unknown_name(parameter, name, known)


def with_method(project: ProjectConfig, name: str) -> DistillationConfig:
    """Returns the project's distillation by another method, at that method's own defaults.

    Raises:
        UserError: there is no such method, it needs no teacher, or the project lacks the groups
            that it needs.
    """
    if name == project.distillation.method:
        return project.distillation
    own = method_class("method", name, distils=True)
    assert issubclass(own, DistillationConfig)
    shared = {name: getattr(project.distillation, name) for name in SHARED_FIELDS}
    config = own.model_validate(shared)
    return grouped_by_project(config, project.attributes, project.name)


def methods_by_block(config: ProjectConfig) -> dict[str, MethodConfig]:
    """Returns the methods that train a project's models, by the block that names them."""
    return {
        "teacher.method": config.teacher.method,
        "student.method": config.student.method,
        "distillation": config.distillation,
    }


def grouping_attributes(config: ProjectConfig) -> dict[str, tuple[str, ...]]:
    """Returns the attributes whose groups methods go by, by the field that names them."""
    return {
        f"{path}.attribute": (column_of(grouped.attribute),)
        for path, method in [
            *methods_by_block(config).items(),
            *((f"methods.{method.method}", method) for method in config.methods),
        ]
        if (grouped := grouping(method)) is not None and grouped.attribute != CLASSES
    }


def is_of_method(name: str) -> bool:
    """Whether an override sets a field of the distillation's method."""
    return name in ("temperature", "alpha") or name.startswith("distillation.")


def takes(own: type[MethodConfig], name: str) -> bool:
    """Whether an override can apply to a method: it sets one of its fields, or another part."""
    fields = {"temperature": own.temperature_field, "alpha": own.alpha_field}
    if name in fields:
        return fields[name] is not None
    return not is_of_method(name) or name.removeprefix("distillation.") in own.model_fields
