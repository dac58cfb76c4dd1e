"""What the server keeps at rest: streams, alerts, deliveries, calibrations."""
