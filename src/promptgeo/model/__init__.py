"""The frozen language model: loading it, checking it, and computing its logits at label positions."""
