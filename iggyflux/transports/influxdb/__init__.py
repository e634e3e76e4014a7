"""InfluxDB 1.x, 2.x and 3.x over HTTP: connections and flavors, writing lines, querying rows."""
