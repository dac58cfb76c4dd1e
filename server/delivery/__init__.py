"""Changes of alerts to webhooks and MQTT, each at least once."""
