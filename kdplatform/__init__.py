"""Knowledge distillation whose effect on class bias and fairness is known, not hoped for."""

__version__ = "0.1.0"
