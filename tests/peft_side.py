"""What PEFT itself says with an adapter: the other side of the comparisons with an exported prompt."""

import warnings
from pathlib import Path

import torch

import reference


class Peft:
    """A base model with an adapter, as PEFT loads and runs them."""

    def __init__(self, base: Path, adapter: Path, special: bool):
        from peft import PeftModel
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(base)
        self.special = special
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what PEFT uses of transformers
            self.model = PeftModel.from_pretrained(reference.original(base), adapter).eval()

    def text(self, task, example) -> list[int]:
        text = task.template.text.replace("{input}", example.input)
        return self.tokenizer(text, add_special_tokens=self.special)["input_ids"]

    def label(self, task, example) -> list[int]:
        label = task.template.label.replace("{label}", example.label) + task.template.end
        return self.tokenizer(label, add_special_tokens=False)["input_ids"]

    def loss(self, text: list[int], label: list[int], left: int = 0, right: int = 0) -> float:
        """Mean over the label's tokens, in nats; with so many padding tokens."""
        ids = [0] * left + text + label + [0] * right
        mask = [0] * left + [1] * len(text + label) + [0] * right
        wanted = [-100] * (left + len(text)) + label + [-100] * right
        with torch.no_grad():
            return float(
                self.model(
                    input_ids=torch.tensor([ids]), attention_mask=torch.tensor([mask]), labels=torch.tensor([wanted])
                ).loss
            )

    def written(self, text: list[int], new: int) -> list[int]:
        ids = torch.tensor([text])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that position ids are ignored
            tokens = self.model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False, pad_token_id=0
            )
        return tokens[0, len(text) :].tolist()
