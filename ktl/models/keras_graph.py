"""Reading a functional model's graph: nodes in order, where weights and arithmetic are."""

import math
import re


def topological_nodes(*outputs) -> list:
    """The graph's nodes from its inputs to `outputs`, each after all that it reads."""
    ordered, seen, stack = [], set(), [(node_of(output), False) for output in outputs]
    # Not recursive: NASNetLarge is a thousand layers deep.
    while stack:
        node, inputs_done = stack.pop()
        if inputs_done:
            ordered.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((node_of(tensor), False) for tensor in node.input_tensors)
    return ordered


def has_kernel(operation) -> bool:
    """Whether an operation multiplies by trained weights (normalisations only scale and shift, and don't count)."""
    return any(len(w.shape) >= 2 for w in getattr(operation, "weights", ()))


def multiply_adds(node) -> int:
    """Multiply-adds of one graph node for one photo: kernel elements times output positions.

    Exact for Dense, convolutions of any grouping and depthwise ones (channels last); other operations count as 0, and a
    dimension that is not known as 1.
    """
    if not has_kernel(node.operation):
        return 0
    positions = math.prod(size or 1 for size in node.outputs[0].shape[1:-1])
    return positions * sum(math.prod(w.shape) for w in node.operation.weights if len(w.shape) >= 2)


def node_of(tensor):
    """The graph node whose output `tensor` is."""
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def forget_other_uses(output) -> None:
    """Leaves the graph that ends in `output` as the only one in which its operations are: `layer.output` is of it."""
    uses: dict[int, list] = {}
    for node in topological_nodes(output):
        uses.setdefault(id(node.operation), []).append(node)
    for nodes in uses.values():
        nodes[0].operation._inbound_nodes[:] = nodes
        for index, node in enumerate(nodes):
            for tensor in node.outputs:
                tensor._keras_history = tensor._keras_history._replace(node_index=index)


def parameters(node) -> int:
    """Elements of all weights of a node's operation."""
    return sum(math.prod(w.shape) for w in getattr(node.operation, "weights", ()))


def kind(operation) -> str:
    """The snake-case class name from which Keras makes up names: `conv2d` of Conv2D."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", type(operation).__name__)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def has_made_up_name(operation) -> bool:
    """Whether nobody named the operation, so that Keras numbered it by a process-wide counter."""
    return re.fullmatch(rf"{kind(operation)}(_\d+)?", operation.name) is not None
