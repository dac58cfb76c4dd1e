"""Make detectors: data, fitting, figures."""

import os

# Torch asks for huge pages where it is told to before its first tensor: a step of LAP moves
# gigabytes, and a fifth of it went into page faults (tests/bench/RESULTS.md).
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
