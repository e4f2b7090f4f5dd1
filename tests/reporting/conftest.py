"""Synthetic studies, whose truth is known."""

from helpers.synthetic_studies import generator, synthetic

__all__ = ["generator", "synthetic"]
