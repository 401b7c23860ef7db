"""The embedded model `tiny`: a GPT-2 of 4.2 M parameters that ships with the package.

With it every command works offline on two CPU cores. `python -m promptgeo.tiny.pretrain` makes the folder at PATH from
the bundled data; AutoModelForCausalLM and AutoTokenizer load it.
"""

from promptgeo.config.paths import EMBEDDED_MODEL as PATH

__all__ = ["PATH"]
