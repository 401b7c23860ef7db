"""The door for `python -m promptgeo.analyze`; see promptgeo.cli_analyze."""

from promptgeo.cli_analyze import main

if __name__ == "__main__":
    main()
