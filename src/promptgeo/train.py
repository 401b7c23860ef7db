"""The door for `python -m promptgeo.train`; see promptgeo.cli.train. Nothing imports it, so pg.train is a function."""

from promptgeo.cli.train import main

if __name__ == "__main__":
    main()
