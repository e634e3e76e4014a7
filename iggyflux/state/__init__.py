"""What a route remembers from run to run, durably.

`store` has the one interface, `sqlite` the databases on disk, `locks` who may write.  Whoever has positions decides
what they are; this room only keeps them.
"""
