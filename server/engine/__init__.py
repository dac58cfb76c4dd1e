"""Windows to features to scores: engines that run a bundle's graphs."""
