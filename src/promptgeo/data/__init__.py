"""Where do examples come from, and how do they become rows of tokens?"""
