"""The frozen language model: loaded and checked, and asked for logits at label positions."""
