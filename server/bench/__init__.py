"""gvvad bench: how many cameras one machine holds."""
