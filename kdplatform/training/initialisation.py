"""A run's model with its initial weights."""

from kdplatform.data import Dataset
from kdplatform.models import InputNormalization, build_model
from kdplatform.training.seeds import Purpose, Role, global_generators_seeded


def initialised_model(name: str, dataset: Dataset, *, seed: int, role: Role) -> InputNormalization:
    """Builds the named model for a dataset, on the CPU.

    It takes the dataset's raw inputs. Its weights depend on name, shapes, seed and role (see
    `seeds.py`); torch's global generators are left as they were.

    Raises:
        UserError: there is no such model.
    """
    with global_generators_seeded(seed, role, Purpose.INITIALISATION):
        model = build_model(name, dataset.facts())
    return InputNormalization(model, *dataset.channel_statistics())
