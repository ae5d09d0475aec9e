"""Where the parts of a decoder lie: its layers, and the modules of attention, feed-forward and norms in each."""

from typing import Any, Literal, get_args

from torch import nn

from warehouse.errors import InputError

Kind = Literal["attention", "feed_forward", "norm"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# the last matrix of each block, whose columns are the block's channels, by the names that architectures give them
FEED_FORWARD_OUT = ("down_proj", "fc2", "dense_4h_to_h", "w2")
ATTENTION_OUT = ("o_proj", "out_proj", "dense", "wo")


def layers_of(network: Any) -> list[nn.Module]:
    """The decoder layers, first to last. Raises `InputError` for a network that is not a stack of them."""
    count = network.config.get_text_config().num_hidden_layers
    for module in network.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return list(module)
    kind = network.config.model_type
    raise InputError(f"a model of type {kind!r} has no list of its {count} layers; tune it with `full` or an adapter")


def kinds_of(layer: nn.Module) -> dict[Kind, list[nn.Module]]:
    """The modules of a layer that hold parameters of their own, by kind and in order of definition.

    A module without a matrix (a norm) is of kind "norm"; one with a matrix belongs to attention where its name says
    so, and else to the feed-forward block.
    """
    found: dict[Kind, list[nn.Module]] = {kind: [] for kind in KINDS}
    for name, module in layer.named_modules():
        own = list(module.parameters(recurse=False))
        if not own:
            continue
        if all(parameter.ndim < 2 for parameter in own):
            found["norm"].append(module)
        else:
            found["attention" if "attn" in name or "attention" in name else "feed_forward"].append(module)
    return found


def matrices_of(network: Any) -> list[nn.Parameter]:
    """Every weight matrix inside the decoder layers; embeddings, head and norms are not among them."""
    return [parameter for layer in layers_of(network) for parameter in layer.parameters() if parameter.ndim == 2]


def output_of(layer: nn.Module, kind: Kind) -> nn.Linear:
    """The linear map that ends the attention or the feed-forward block of a layer; `InputError` where none is known."""
    names = ATTENTION_OUT if kind == "attention" else FEED_FORWARD_OUT
    known = {id(module) for module in kinds_of(layer)[kind]}
    for name, module in layer.named_modules():
        if name.rpartition(".")[2] in names and isinstance(module, nn.Linear) and id(module) in known:
            return module
    raise InputError(
        f"{type(layer).__name__} has no linear map called {' or '.join(names)} at the end of its "
        f"{kind.replace('_', '-')} block, whose channels could be chosen; tune it with `hft` or `full`"
    )
