"""The door for `python -m promptgeo.reproduce`; see promptgeo.cli.reproduce. Nothing imports it."""

from promptgeo.cli.reproduce import main

if __name__ == "__main__":
    main()
