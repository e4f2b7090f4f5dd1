"""The one Study: arms and seeds of predictions, their metrics, intervals, tests and verdicts."""
