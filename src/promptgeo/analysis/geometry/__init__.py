"""Where prompts lie: the computations behind the questions."""
