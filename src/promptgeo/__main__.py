"""The door for `python -m promptgeo`; see promptgeo.cli.commands. Nothing imports it."""

from promptgeo.cli.commands import main

if __name__ == "__main__":
    main()
