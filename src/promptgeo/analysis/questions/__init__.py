"""One question per file, each a function RunTable -> Result. No file imports another."""
