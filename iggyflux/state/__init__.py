"""Durable state that a route keeps from run to run.

`store` has the one interface, `sqlite` the databases on disk, `locks` the right to write.  The package that owns
positions defines them; this one only stores them.
"""
