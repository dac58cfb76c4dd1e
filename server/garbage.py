"""Keep Python's garbage collector out of the way of windows.

A full collection looks at every object while nothing else runs: in a server with its
libraries loaded that took 130 to 320 ms, and the frames of every stream waited.
"""

from __future__ import annotations

import gc


def set_aside() -> None:
    """Let later collections look only at what is made from now on.

    What is there stays for good: call it once, when all that lasts has been built. What
    reference counts free, they free as ever.
    """
    gc.collect()
    gc.freeze()
