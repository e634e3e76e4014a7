"""Lines to InfluxDB."""
