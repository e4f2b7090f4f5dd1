"""The temperatures that the loss takes; free of torch, so that settings can be checked early.

Beyond these float32 has no digits left: T^2 leaves its range below 1e-19 and above 1e19, and the
gradient, a difference of probabilities times T, is off by about 2e-8 T of its size.
"""

LOWEST_TEMPERATURE = 1e-6
HIGHEST_TEMPERATURE = 1e6
