"""Make bundles of detectors."""
