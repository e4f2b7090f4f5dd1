"""Documents for readers of a model: model card, loss statement, evaluation record, technical text.

They claim only what was measured, and name what was not.
"""
