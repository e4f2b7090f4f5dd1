"""`python -m kdplatform`."""

import sys

from kdplatform.cli import main

sys.exit(main())
