"""AdaAlpha: our reading of Lukasik et al., "Teacher's pet", TMLR 2022 (arXiv 2106.10494).

    a_i * T^2 * KL(teacher || student at T) + (1 - a_i) * CE a_g = min(1, scale * max(floor, m_g)),
    m_g the teacher's mean margin in class or group g

The student learns from the teacher where the teacher is right, and from labels elsewhere. The paper
finds that distillation harms rare classes through the teacher's errors. The paper's text could not
be read, so the formula and the defaults are ours.

The margins are measured on the validation split, never on the teacher's training examples. The
student's validation numbers are therefore not independent of training.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from kdplatform.methods import Batch, Loss, Run
from kdplatform.methods._margins import MarginConfig, MarginMethod
from kdplatform.methods._terms import usual_loss
from kdplatform.settings.schema import DistillationConfig, Temperature


class Config(MarginConfig, DistillationConfig):
    """The temperature at which the student learns from the teacher."""

    temperature_field: ClassVar[str] = "temperature"

    method: Literal["adaptive_alpha"] = Field("adaptive_alpha", description="method")
    temperature: Temperature = Field(
        4.0, description="softmax temperature T of teacher and student"
    )


class AdaptiveAlpha(MarginMethod[Config]):
    """Plain distillation with alpha by how far the teacher can be trusted with the example."""

    def loss(self, batch: Batch, run: Run) -> Loss:
        """Returns the loss of each row; parts are `kl` and `ce`."""
        return usual_loss(
            batch,
            run,
            temperature=self.config.temperature,
            alpha=self.trust[self.groups[batch.rows]].clamp(0, 1),
        )
