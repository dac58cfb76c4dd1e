"""Sources to frames, with PyAV, in worker processes."""
