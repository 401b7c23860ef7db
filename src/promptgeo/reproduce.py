"""python -m promptgeo.reproduce: the door of cli/reproduce.py. Imported by nobody."""

from promptgeo.cli.reproduce import main

if __name__ == "__main__":
    main()
