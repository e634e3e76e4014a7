"""Engines that spread the work of `iggyflux load` over many machines, one file each, imported when asked for."""
