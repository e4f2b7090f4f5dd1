"""From prediction tables to statistics: pure functions that need no model, dataset or tracking."""
