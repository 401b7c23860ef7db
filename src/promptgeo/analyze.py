"""The door for `python -m promptgeo.analyze`; see promptgeo.cli.analyze. Nothing imports it."""

from promptgeo.cli.analyze import main

if __name__ == "__main__":
    main()
