"""Forms that others read: model card, loss statement, evaluation record, technical documentation.

Nothing is claimed in them that was not measured; what was not is said to be so.
"""
