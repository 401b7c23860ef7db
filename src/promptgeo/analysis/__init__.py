"""What finished runs say: one question per file, each a function RunTable -> Result.

    result = mean_distances(pg.load_runs("outputs/init_vs_task"), of="delta")

A function that has the parameter `of` answers for the prompts P and for what training added, delta = P - P0; one that has
`convention` answers as the study counted and as it should be counted. `python -m promptgeo.analyze` runs it for all of them.
"""
