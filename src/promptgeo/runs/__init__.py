"""The run folder and tables of runs: the only interface between training and what comes after it."""
