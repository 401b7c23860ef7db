"""python -m promptgeo.train: the door of cli/train.py. Imported by nobody, so that pg.train is a function."""

from promptgeo.cli.train import main

if __name__ == "__main__":
    main()
