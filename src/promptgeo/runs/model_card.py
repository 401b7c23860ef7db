"""What does a model card say of an exported prompt? Its model, how to write the input, its numbers, how to use it."""

import json
from dataclasses import dataclass

from promptgeo.runs.folder import Run


@dataclass(frozen=True)
class Card:
    """What a card is made of."""

    run: Run
    which: str | int
    """The prompt: final, best, initial, or a checkpoint's step."""
    base: str
    """The base model: a hub id, a folder, or tiny."""
    revision: str | None
    text: str | None
    """What follows the prompt, with {input}; None where that is not known."""
    rows_before: int
    """The adapter's first rows that are no prompt tokens."""
    bos_in_text: bool
    """Whether the tokenizer puts BOS before the text."""


PADDING = """\
Feed one input at a time, or inputs of equal length. PEFT puts its rows before everything, padding too: with padding on
the left, the padding stands between the prompt and the text. It is masked, but a model that counts positions (all but
those with ALiBi, such as BLOOM) then sees the text further away from the prompt than in training. On Gemma 3 270M 1, 4
and 16 such tokens changed the loss of single examples by up to 0.12, 0.49 and 1.02 nats a token, and 2, 9 and 10 of 40
outputs. Padding on the right changes nothing in a forward pass, but no model can write behind it.
"""


def card_text(card: Card) -> str:
    """The card, as the README.md of a repository on the hub."""
    run = card.run
    length = run.info["results"]["prompt_length"]
    which = f"the checkpoint of step {card.which}" if isinstance(card.which, int) else f"the {card.which} prompt"
    return "\n".join(
        [
            *_front(card.base),
            f"# {run.folder.name}",
            "",
            f"A soft prompt of {length} tokens for a frozen language model, trained with promptgeo: "
            f"{which} of run {run.id[:8]}.",
            "",
            *_facts(card),
            "",
            "## Numbers",
            "",
            *_numbers(card),
            "",
            "## Use",
            "",
            *_order(card),
            "",
            *_code(card),
            "",
            "## Padding",
            "",
            PADDING.rstrip(),
            "",
        ]
    )


def on_hub(model: str) -> bool:
    """Whether a model's name is a hub id, by its form."""
    return model.count("/") == 1 and not model.startswith((".", "/", "~"))


def _front(model: str) -> list[str]:
    """What the hub reads: a folder of one's own is no model there."""
    base = [f"base_model: {json.dumps(model)}"] if on_hub(model) else []
    return ["---", *base, "library_name: peft", "tags:", "- prompt-tuning", "- promptgeo", "---", ""]


def _facts(card: Card) -> list[str]:
    config, results = card.run.info["config"], card.run.info["results"]
    facts = {
        "base model": card.base,
        "revision": card.revision,
        "task": config["task"]["name"],
        "template": config["template"]["name"],
        "init": config["init"]["name"],
        "seed": config["seed"],
        "prompt tokens": results["prompt_length"],
        "steps": results["steps"],
        "longest input": config["task"].get("max_input_tokens"),
    }
    return [
        "| | |",
        "|---|---|",
        *(f"| {name} | {_cell(value)} |" for name, value in facts.items() if value is not None),
    ]


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").split())


def _numbers(card: Card) -> list[str]:
    """Accuracy with its n, beside the model's without a prompt and with P0."""
    results = card.run.info["results"]
    names = {
        "none": "without a prompt",
        "initial": "with P0",
        "final": "with the final prompt",
        "best": "with the best",
    }
    known = {names[key]: value for key, value in results["accuracy"].items() if value is not None}
    if isinstance(card.which, int):
        known = {name: value for name, value in known.items() if name != names["best"]}
    if not known:
        return ["None is known."]
    split = f" of the {results['split']} split" if results["split"] else ""
    on = f"on {results['n']} examples{split}" if results["n"] else "on an unknown number of examples"
    note = ["", "The checkpoint's own is not among them."] if isinstance(card.which, int) else []
    rows = [f"| {name} | {value:.3f} |" for name, value in known.items()]
    return [f"| accuracy {on} | |", "|---|---|", *rows, *note]


def _order(card: Card) -> list[str]:
    """How the input is written, and where BOS stands."""
    template, length = card.run.info["config"]["template"], card.run.info["results"]["prompt_length"]
    before = (
        f"The adapter has {card.rows_before + length} rows: {card.rows_before} for what stands before the prompt in "
        "every input (BOS, as the model's embeddings give it), then the prompt. "
        if card.rows_before
        else ""
    )
    bos = (
        "Tokenise the text with the tokenizer's special tokens: BOS stands between the prompt and the text."
        if card.bos_in_text
        else "Tokenise the text without special tokens (`add_special_tokens=False`): no BOS stands before the text."
    )
    lines = [before + bos, ""]
    if card.text is None:
        return [*lines, "How the input was written is not known: the prompt was trained elsewhere."]
    label = template["label"] + template["end"]
    return [
        *lines,
        f"The input is written as `{json.dumps(card.text)}`, and the model answers with `{json.dumps(label)}` "
        "(JSON texts: \\n is a new line), whose tokens are made apart from the text's.",
    ]


def _code(card: Card) -> list[str]:
    template = card.run.info["config"]["template"]
    revision = f", revision={json.dumps(card.revision)}" if card.revision else ""
    dtype = {"bf16": "bfloat16"}.get(card.run.info.get("precision") or "", "float32")
    if card.base == "tiny":
        base = ["from promptgeo.config.paths import EMBEDDED_MODEL", "", "base = str(EMBEDDED_MODEL)"]
    else:
        base = ["", f"base = {json.dumps(card.base, ensure_ascii=False)}"]
    text = json.dumps(card.text if card.text is not None else "{input}", ensure_ascii=False)
    special = "" if card.bos_in_text else ", add_special_tokens=False"
    return [
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        *base,
        'adapter = "."  # this folder, or its name on the hub',
        f"tokenizer = AutoTokenizer.from_pretrained(base{revision})",
        f'model = AutoModelForCausalLM.from_pretrained(base{revision}, dtype="{dtype}")',
        "model = PeftModel.from_pretrained(model, adapter).eval()",
        f'text = {text}.replace("{{input}}", "...")',
        f'inputs = tokenizer(text{special}, return_tensors="pt")',
        f"tokens = model.generate(**inputs, max_new_tokens={template.get('max_new_tokens', 16)}, do_sample=False)",
        'print(tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :]))',
        "```",
    ]
