"""Tables and figures: pure functions from data frames."""
