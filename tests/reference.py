"""What the engine promises, written from the definitions: one unpadded row at a time through Hugging Face's own model.

Slow on purpose; nothing here uses promptgeo's batching, hooks or training code.
"""

import os

import numpy as np
import torch
import transformers
from torch.nn.functional import cross_entropy

from promptgeo.config.compose import compose
from promptgeo.data.row import Row
from promptgeo.runs.folder import Run
from promptgeo.training.cell import cell_of
from promptgeo.training.engine import train_pack
from promptgeo.training.plan import Plan, plan

DEVICE = os.environ.get("PROMPTGEO_TEST_DEVICE", "cpu")
"""Where promptgeo's side of a comparison runs; the reference stays on the CPU."""


def original(folder):
    """The model as Hugging Face loads it: no hook, no fused activation."""
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def make_plan(model_folder, outputs, *overrides: str) -> Plan:
    """A run on a model folder, through the real configuration; in fp32, as the references are."""
    where = [f"device={DEVICE}", "precision=fp32"] if DEVICE != "cpu" else ["device=cpu"]
    config = compose([f"model.name_or_path={model_folder}", f"outputs={outputs}", *where, *overrides])
    return plan(cell_of(config))


def trained(plan: Plan) -> Run:
    """The run, trained alone by promptgeo."""
    assert train_pack([plan]) == {}
    return Run.load(plan.folder)


def row(ids, label) -> Row:
    return Row(np.array(ids, dtype=np.int64), np.array(label, dtype=np.int64))


def random_rows(count: int, prompt_length: int, vocabulary: int, seed: int, longest: int = 24) -> list[Row]:
    """Rows of 1 to `longest` text tokens and 1 to 5 label tokens; the prompt in front, in the middle, last or twice."""
    generator = np.random.default_rng(seed)
    prompt = [-1 - k for k in range(prompt_length)]
    rows = []
    for i in range(count):
        text = generator.integers(2, vocabulary, generator.integers(1, longest + 1)).tolist()
        cut = len(text) // 2
        ids = (prompt + text, text[:cut] + prompt + text[cut:], text + prompt, prompt + text + prompt)[i % 4]
        rows.append(row(ids, generator.integers(2, vocabulary, generator.integers(1, 6))))
    return rows


def embeddings(model, prompt_Pd, ids) -> torch.Tensor:
    """[T, d]: the sequence by hand, token by token."""
    lookup = model.get_input_embeddings()
    return torch.stack([prompt_Pd[-1 - i] if i < 0 else lookup(torch.tensor([i]))[0] for i in np.asarray(ids).tolist()])


def label_logits(model, prompt_Pd, row: Row) -> torch.Tensor:
    """[m, V]: the logits that predict each label token."""
    inputs = embeddings(model, prompt_Pd, np.concatenate([row.ids, row.label]))
    logits_TV = model(inputs_embeds=inputs[None], use_cache=False).logits[0]
    return logits_TV[len(row.ids) - 1 : -1]


def row_loss(model, prompt_Pd, row: Row) -> torch.Tensor:
    """Cross-entropy summed over the label's tokens."""
    return cross_entropy(label_logits(model, prompt_Pd, row), torch.from_numpy(row.label), reduction="sum")


@torch.no_grad()
def written(model, prompt_Pd, row: Row, max_new_tokens: int, use_cache: bool = True) -> list[int]:
    """What generate() writes after the row's text."""
    inputs = embeddings(model, prompt_Pd, row.ids)[None]
    mask = torch.ones(inputs.shape[:2], dtype=torch.long)
    tokens = model.generate(
        inputs_embeds=inputs,
        attention_mask=mask,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        use_cache=use_cache,
        pad_token_id=0,
    )
    return tokens[0].tolist()


def verdict(tokenizer, template, label: str, tokens: list[int]) -> tuple[bool, str]:
    """(correct, output) of a row whose continuation is `tokens`, from DESIGN's scoring rules."""
    scoring, ended = template.scoring.name, tokens[-1] == tokenizer.eos_token_id
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    output = text.split(template.end)[0] if template.end else text
    if scoring == "line":
        return (ended or template.end in text) and output.strip() == label.strip(), output
    if scoring == "prefix":
        return text.strip().startswith(label.strip()), output
    return tokens[0] == tokenizer(template.label.replace("{label}", label))["input_ids"][0], output


def minibatches(plan: Plan) -> list[list[int]]:
    """The order of the run's data: a new permutation each epoch from the run's own generator."""
    generator = torch.Generator().manual_seed(plan.seeds["order"])
    size, batches = plan.config.training.batch_size, []
    while len(batches) < plan.total_steps:
        order = torch.randperm(len(plan.train_rows), generator=generator).tolist()
        batches += [order[start : start + size] for start in range(0, len(order), size)]
    return batches[: plan.total_steps]


def train(plan: Plan, model) -> list[np.ndarray]:
    """The prompt after each step: torch.optim, transformers' schedule, single rows; no Lightning, no batching."""
    config = plan.optimizer
    prompt = torch.nn.Parameter(plan.p0_Pd.clone())
    settings = {"lr": config.lr, "weight_decay": config.weight_decay}
    optimizer = {
        "adamw": lambda: torch.optim.AdamW([prompt], betas=tuple(config.betas), eps=config.eps, **settings),
        "adam": lambda: torch.optim.Adam([prompt], betas=tuple(config.betas), eps=config.eps, **settings),
        "sgd": lambda: torch.optim.SGD([prompt], momentum=config.momentum, **settings),
        "adafactor": lambda: torch.optim.Adafactor([prompt], **settings),
    }[config.name.name]()
    name = {"constant": "constant_with_warmup"}.get(config.schedule.name, config.schedule.name)
    scheduler = transformers.get_scheduler(name, optimizer, config.warmup_steps, plan.total_steps)
    prompts = []
    for minibatch in minibatches(plan):
        rows = [plan.train_rows[i] for i in minibatch]
        optimizer.zero_grad()
        (sum(row_loss(model, prompt, row) for row in rows) / sum(len(row.label) for row in rows)).backward()
        if config.clip is not None:
            torch.nn.utils.clip_grad_norm_([prompt], config.clip)
        optimizer.step()
        scheduler.step()
        prompts.append(prompt.detach().numpy().copy())
    return prompts
