"""Whether the library of kernels is wanted. Free of torch, so that commands check it early."""

import os

MODES = ("auto", "require", "off")


def mode() -> str:
    """Returns `$KDPLATFORM_KERNELS`: "auto" (the default), "require" or "off".

    Raises:
        ValueError: any other value.
    """
    value = os.environ.get("KDPLATFORM_KERNELS", "auto")
    if value not in MODES:
        raise ValueError(
            f"KDPLATFORM_KERNELS={value!r} is not allowed; allowed: {' | '.join(MODES)}"
        )
    return value
