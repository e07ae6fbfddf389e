"""Freeze boundaries: where a backbone's graph can be cut in two, the first part frozen.

A boundary is a tensor that every path from the input to the output crosses, with new weights between one boundary and
the next. Depth 0 freezes nothing, the last depth freezes the whole backbone.
"""

import dataclasses
import math

import keras

from ktl.arguments import checked_arguments
from ktl.errors import UserError
from ktl.models.keras_graph import has_kernel, has_made_up_name, multiply_adds, node_of, parameters, topological_nodes

AUTO_FROZEN_COST = 0.9


@dataclasses.dataclass(frozen=True)
class Boundary:
    """A place where a network can be cut.

    Attributes:
        depth: the number of weight-bearing stages before it, 0 for none.
        name: of the last layer before it, stable from process to process.
        tensor: the KerasTensor to cut at: the smallest between the last frozen weights and the first trained ones.
        aliases: names of the layers between those weights; each names this boundary too.
        parameters_before: weights' elements before the boundary.
        parameters_after: weights' elements after it, up to the backbone's output.
        cost_share: the multiply-adds of a forward pass that lie before it, as a fraction of the backbone's, 0 to 1.
    """

    depth: int
    name: str
    tensor: keras.KerasTensor
    aliases: frozenset
    parameters_before: int
    parameters_after: int
    cost_share: float


@checked_arguments
def find_boundaries(output: keras.KerasTensor) -> tuple[Boundary, ...]:
    """The freeze boundaries of the graph that ends in `output`, from the input on.

    Args:
        output: the backbone's tensor that a head reads.

    Returns:
        One boundary a depth: `result[d].depth == d`.

    Raises:
        UserError: `output` is no tensor of a graph of layers.

    Example:
        >>> backbone = ktl.build_backbone("mobilenet_0.75")
        >>> [boundary.name for boundary in ktl.find_boundaries(backbone.logits)][-2:]
        ['conv_pw_13_relu', 'conv_preds']
    """
    nodes = topological_nodes(output)
    stages = _stages(nodes, _cut_positions(nodes))
    first_use = {id(node.operation): i for i, node in reversed(list(enumerate(nodes)))}
    sizes = [parameters(node) if first_use[id(node.operation)] == i else 0 for i, node in enumerate(nodes)]
    costs = [multiply_adds(node) for node in nodes]
    boundaries, start = [], 0
    for depth, (tail, end) in enumerate(stages):
        boundaries.append(
            Boundary(
                depth=depth,
                name="none" if depth == 0 else _name(nodes, start, tail),
                tensor=_smallest_tensor(nodes, tail),
                aliases=frozenset(nodes[i].operation.name for i in tail),
                parameters_before=sum(sizes[:end]) if depth else 0,
                parameters_after=sum(sizes[end:]) if depth else sum(sizes),
                cost_share=sum(costs[:end]) / max(sum(costs), 1),
            )
        )
        start = end
    return tuple(boundaries)


def find_boundary(boundaries: tuple[Boundary, ...], freeze_depth: int | str) -> Boundary:
    """The boundary that `freeze_depth` names.

    Args:
        boundaries: from `find_boundaries`.
        freeze_depth: a number from 0; a boundary's layer name; `none`; `all`; or `auto`, the deepest boundary with at
            most 90 % of the forward pass before it, whatever the head; `TransferClassifier.boundary_at` asks the head.

    Raises:
        UserError: there is no such boundary; the message lists those that exist.
    """
    text = str(freeze_depth)
    if text == "all":
        return boundaries[-1]
    if text == "auto":
        return [b for b in boundaries if b.cost_share <= AUTO_FROZEN_COST][-1]
    for boundary in boundaries:
        if text == boundary.name or text in boundary.aliases:
            return boundary
    if text.isdecimal() and int(text) < len(boundaries):
        return boundaries[int(text)]
    names = ", ".join(f"{b.depth} {b.name}" for b in boundaries)
    raise UserError(f"Expected `freeze_depth` to be none, all, auto or one of: {names}. Received: {freeze_depth}")


def spread_depths(boundaries: tuple[Boundary, ...]) -> tuple[str, ...]:
    """The freeze depths that are tried where none are named: in the second half of the forward pass, a step apart.

    A step is 5 % of the forward pass's multiply-adds or 10 % of the parameters; our choice. The last is `all`: the last
    boundary's name depends on the head.

    Args:
        boundaries: from `find_boundaries`.
    """
    total = boundaries[0].parameters_after
    spread = []
    for boundary in boundaries:
        if boundary.cost_share < 0.5:
            continue
        if (
            not spread
            or boundary.cost_share - spread[-1].cost_share >= 0.05
            or boundary.parameters_before - spread[-1].parameters_before >= 0.1 * total
        ):
            spread.append(boundary)
    return (*(boundary.name for boundary in spread if boundary is not boundaries[-1]), "all")


def _cut_positions(nodes) -> list[int]:
    """Positions whose output alone carries everything computed so far: no edge jumps over them, and no layer with
    weights is used on both sides."""
    position = {id(node): i for i, node in enumerate(nodes)}
    last_use = {id(node.operation): i for i, node in enumerate(nodes)}
    last_reader = [last_use[id(node.operation)] if parameters(node) else i for i, node in enumerate(nodes)]
    for i, node in enumerate(nodes):
        for tensor in node.input_tensors:
            source = position[id(node_of(tensor))]
            last_reader[source] = max(last_reader[source], i)
    cuts, furthest = [], 0
    for i, node in enumerate(nodes):
        # Keras does not cut behind a layer, such as a rectifier, that is used again further on.
        known = len(node.outputs) == 1 and None not in node.outputs[0].shape[1:]  # what is cached has a shape
        if known and furthest <= i == last_use[id(node.operation)]:
            cuts.append(i)
        furthest = max(furthest, last_reader[i])
    return cuts


def _stages(nodes, cuts) -> list[tuple[list[int], int]]:
    """Splits the cuts into stages that end before the next kernel; (cut positions past the last weight, end)."""
    stages, tail, position = [], [], 0
    for cut in cuts:
        between = nodes[position : cut + 1]
        if tail and any(has_kernel(node.operation) for node in between):
            stages.append((tail, tail[-1] + 1))
            tail = []
        elif any(parameters(node) for node in between):
            tail = []  # a normalisation belongs to the kernel before it
        tail.append(cut)
        position = cut + 1
    return [*stages, (tail, tail[-1] + 1)]


def _is_dropout(node) -> bool:
    return isinstance(node.operation, keras.layers.Dropout)


def _name(nodes, start: int, tail: list[int]) -> str:
    """The last named layer that keeps the shape of the stage's result: the activation, not the pooling or padding."""
    shape = nodes[tail[0]].outputs[0].shape
    same = [i for i in tail if nodes[i].outputs[0].shape == shape and not _is_dropout(nodes[i])]
    named = [i for i in range(start, same[-1] + 1) if not has_made_up_name(nodes[i].operation)]
    return nodes[(named or same)[-1]].operation.name


def _smallest_tensor(nodes, tail) -> keras.KerasTensor:
    """The cheapest place to cut: activations over their inputs, pooled over unpooled, never behind a dropout."""
    best = nodes[tail[0]].outputs[0]
    for i in tail[1:]:
        if _is_dropout(nodes[i]):
            break
        tensor = nodes[i].outputs[0]
        if math.prod(tensor.shape[1:]) <= math.prod(best.shape[1:]):
            best = tensor
    return best
