"""The tuner: an Optuna study whose trials are steps of the experiments."""
