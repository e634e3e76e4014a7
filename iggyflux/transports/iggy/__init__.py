"""Apache Iggy: one connection to a server, its topics as sources and sinks, and membership of consumer groups."""
