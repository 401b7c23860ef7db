"""A property of this CPU on which bitwise promises rest: what a matrix product's rows depend on.

Rows come in multiples of 8. For narrow models a row's result then does not depend on how many rows there are. For wide
ones it does (here from 144 rows on with two threads), so FrozenLM.mixes_prompts asks the processor before a batch holds rows of two prompts.
"""

import pytest
import torch
from torch.nn.functional import linear

from promptgeo.batching import GEMM_ROWS


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("d_in", "d_out"), [(16, 32), (32, 96), (32, 64), (64, 32), (32, 600), (256, 768)])
def test_a_rows_result_is_bitwise_independent_of_the_number_of_rows(threads, d_in, d_out):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(512, d_in, generator=generator)
    weight = torch.randn(d_out, d_in, generator=generator)
    gradient = torch.randn(512, d_out, generator=generator)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        few = x[:GEMM_ROWS]
        forward, conv1d, backward = linear(few, weight), few @ weight.t().contiguous(), gradient[:GEMM_ROWS] @ weight
        transposed = weight.t().contiguous()
        for rows in range(GEMM_ROWS, 129, GEMM_ROWS):
            assert torch.equal(linear(x[:rows], weight)[:GEMM_ROWS], forward), rows
            assert torch.equal((x[:rows] @ transposed)[:GEMM_ROWS], conv1d), rows
            assert torch.equal((gradient[:rows] @ weight)[:GEMM_ROWS], backward), rows
    finally:
        torch.set_num_threads(before)
