"""Deterministic simulation: the real code of a run in a world of models, with a virtual clock and a seed.

`loop` has the time and the processes, `disk`, `iggy` and `influxdb` the models, `world` one run of a seed, `truth` what
must hold.  `python -m tests.simulation --help` runs seeds.
"""
