"""Where prompts lie: arithmetic that several questions share. Nothing here trains or scores a prompt."""
