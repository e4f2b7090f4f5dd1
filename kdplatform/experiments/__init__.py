"""The steps of a study: what a run is, when it is reused, what it logs."""
