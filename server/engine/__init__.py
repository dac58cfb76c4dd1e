"""Windows to features to scores: engines that run a bundle's graphs."""

import os

# Official builds of ONNX Runtime report to Microsoft and keep a device id in ~/.cache; who watches
# cameras decides that for themselves. It reads this as it is loaded, so here, before any engine.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
