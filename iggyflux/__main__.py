"""`python -m iggyflux` is the `iggyflux` command."""

from iggyflux.cli import main

main()
