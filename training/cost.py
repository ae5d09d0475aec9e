"""What a run costs in floating-point operations, from the tokens it really read.

N parameters that take part in matrix products, T tokens: a forward pass is 2NT, the gradient with respect to the inputs
another 2NT, the gradient with respect to the weights another 2NT (Kaplan et al. 2020, §2.1). Ivison et al. 2025, whose
cost axis this is, charge 2048 tokens for every row; here rows are charged what they have.

The costs of selection methods are sums of these two: RDS+ is a training run on the chosen tokens and a forward pass
over the pool; LESS is two training runs and three gradient passes over the pool, `3 * train_flops(N, pool_tokens)`.
"""


def forward_flops(parameters: int, tokens: int) -> int:
    """Operations of one forward pass over `tokens`: 2NT."""
    return 2 * parameters * tokens


def train_flops(trainable: int, tokens: int, frozen: int = 0) -> int:
    """Operations of a training pass: 6 per trainable parameter and token, 4 per frozen one (it needs no gradient)."""
    return (6 * trainable + 4 * frozen) * tokens
