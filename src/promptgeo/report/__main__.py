"""The door for `python -m promptgeo.report`; see promptgeo.cli.report. Nothing imports it."""

from promptgeo.cli.report import main

if __name__ == "__main__":
    main()
