"""The embedded model `tiny`: a GPT-2 of 4.2 M parameters that ships with the package, so that every command works offline on two CPU cores.

`python -m promptgeo.tiny.pretrain` makes the folder at PATH from the bundled data; AutoModelForCausalLM and AutoTokenizer load it.
"""

from pathlib import Path

PATH = Path(__file__).parent / "model"
"""The Hugging Face folder: config.json, model.safetensors (fp16), tokenizer.json, tokenizer_config.json."""
