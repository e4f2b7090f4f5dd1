"""Forms that others read: model card, loss statement, evaluation record, technical documentation.

They claim only what was measured, and name what was not.
"""
