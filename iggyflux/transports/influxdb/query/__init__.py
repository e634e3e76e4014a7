"""Rows from InfluxDB: statements in InfluxQL, Flux and SQL, and their answers."""
