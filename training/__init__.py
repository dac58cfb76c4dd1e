"""Make detectors from labelled clips."""
