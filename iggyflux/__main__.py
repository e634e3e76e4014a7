"""The `iggyflux` command as a process, also as `python -m iggyflux`."""

from iggyflux.interrupts import leave_on_interrupt


def main() -> None:
    """Run the command and exit."""
    leave_on_interrupt()
    from iggyflux.cli import main as run  # after the line above, since it takes a while

    run()


if __name__ == "__main__":
    main()
