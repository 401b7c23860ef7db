"""How long do hidden states of many prompts take? 1,000 prompts x 50 rows, one layer, the last position, on tiny.

    python benchmarks/hidden_states.py [--prompts 1000] [--rows 50]

Wanted: at most two minutes on two cores. Ten of the states are compared with those of a plain forward.
"""

import argparse
import time

import torch
from transformers import AutoModelForCausalLM

import promptgeo as pg
from promptgeo.model.frozen_lm import FrozenLM
from promptgeo.tiny import PATH

LENGTH, LAYER = 4, 2


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=50)
    given = parser.parse_args()
    lm, task = FrozenLM.load("tiny"), pg.task("country_capital")
    examples = [*task.train, *task.test][: given.rows]
    texts = task.rows(lm, examples, LENGTH)
    prompts_NPd = torch.randn(given.prompts, LENGTH, lm.width, generator=torch.Generator().manual_seed(0)) / 10
    rows = texts * given.prompts
    prompt_of = [n for n in range(given.prompts) for _ in texts]
    begun = time.perf_counter()
    (states_BQD,) = lm.hidden(prompts_NPd, rows, prompt_of, [LAYER], [[-1]] * len(rows))
    print(f"{given.prompts:,} prompts x {len(texts)} rows: {time.perf_counter() - begun:.1f} s")
    plain, worst = AutoModelForCausalLM.from_pretrained(PATH).eval(), 0.0
    for k in range(0, len(rows), max(len(rows) // 10, 1)):
        ids = torch.from_numpy(rows[k].ids)
        embeds_Td = plain.get_input_embeddings()(ids.clamp(min=0))
        at = ids < 0
        embeds_Td[at] = prompts_NPd[prompt_of[k]][-1 - ids[at]]
        state_D = plain(inputs_embeds=embeds_Td[None], output_hidden_states=True).hidden_states[LAYER][0, -1]
        worst = max(worst, float((states_BQD[k, 0] - state_D).abs().max() / state_D.abs().max()))
    print(f"largest difference from a plain forward: {worst:.1e} of the state's largest value")


if __name__ == "__main__":
    main()
