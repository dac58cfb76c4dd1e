"""Make bundles of detectors."""

import server.engine  # noqa: F401  it keeps ONNX Runtime from reporting, before that is loaded
