"""Real-time surveillance anomaly server. Never imports torch."""
