"""Batch normalization folded into the convolution before it: the same function in fewer passes over memory."""

import collections
from collections.abc import Sequence

import keras
import numpy as np

from ktl.models.keras_graph import node_of, topological_nodes


def fold_batch_normalization(inputs: keras.KerasTensor, outputs: Sequence[keras.KerasTensor]) -> keras.Model:
    """A model of the same outputs in inference mode, without the normalizations that directly follow a linear layer.

    In inference mode batch normalization is y = gamma (x - mean) / sqrt(variance + epsilon) + beta with constants a
    channel. After x = kernel * input + bias that is another linear layer, with s = gamma / sqrt(variance + epsilon):

        kernel' = s kernel,  bias' = beta + s (bias - mean)

    Each such pair of layers becomes one new layer, of the convolution's name, type and dtype policy; the weights of the
    pair stay as they are. All other layers are shared with the original graph, which thereby holds on to the new ones.

    Reference:
        Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
        CVPR 2018, section 3.2, equation 14. https://arxiv.org/abs/1712.05877

    Args:
        inputs: the graph's input, [batch, ...].
        outputs: tensors of that graph, of any shapes.

    Returns:
        `inputs` to a list of tensors of the shapes and dtypes of `outputs`, or to the tensor if there is one.
        To be called with `training=False`.
    """
    nodes = topological_nodes(*outputs)
    normalizations = _foldable(nodes, outputs)
    values = {id(inputs): inputs}
    for node in nodes:
        if id(node.outputs[0]) in values:
            continue  # the input, or a normalization that is folded already
        arguments, keywords = node.arguments.fill_in(values)
        normalization = normalizations.get(id(node))
        operation = _fold(node, normalization.operation) if normalization else node.operation
        results = keras.tree.flatten(operation(*arguments, **keywords))
        values.update(zip(map(id, node.outputs), results, strict=True))
        if normalization:
            values[id(normalization.outputs[0])] = results[0]
    folded = [values[id(output)] for output in outputs]
    return keras.Model(inputs, folded if len(folded) > 1 else folded[0])


def _foldable(nodes, outputs) -> dict:
    """id of a linear layer's node -> the node of the normalization to fold into it."""
    uses = collections.Counter(id(node.operation) for node in nodes)
    # An output of the model is read by the model's caller.
    reads = collections.Counter(map(id, [*(tensor for node in nodes for tensor in node.input_tensors), *outputs]))
    pairs = {}
    for node in nodes:
        if not _normalizes_channels(node):
            continue
        (tensor,) = node.input_tensors
        source = node_of(tensor)
        unshared = reads[id(tensor)] == uses[id(source.operation)] == uses[id(node.operation)] == 1
        if unshared and _is_linear(source.operation) and tensor.dtype == node.outputs[0].dtype:
            pairs[id(source)] = node
    return pairs


def _normalizes_channels(node) -> bool:
    """Whether a node is a batch normalization, without a mask, over the last axis."""
    # Not `isinstance`: what subclasses do is unknown.
    if type(node.operation) is not keras.layers.BatchNormalization or len(node.input_tensors) != 1:
        return False
    return node.operation.axis in (-1, len(node.input_tensors[0].shape) - 1)


def _is_linear(layer) -> bool:
    """Whether a layer is kernel * input + bias, its channels last, and has no other weights (LoRA, quantization)."""
    return (
        type(layer) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
        and layer.activation is keras.activations.linear
        and getattr(layer, "data_format", "channels_last") == "channels_last"
        and len(layer.weights) == 1 + layer.use_bias
    )


def _fold(node, normalization: keras.layers.BatchNormalization) -> keras.Layer:
    """A new layer that does what a linear layer's node and the normalization after it do."""
    old = node.operation
    # Zeros: random initial values would move the random state on which the training that follows depends.
    config = {key: "zeros" if key.endswith("_initializer") else value for key, value in old.get_config().items()}
    new = type(old).from_config({**config, "use_bias": True})
    new.build(node.input_tensors[0].shape)
    scale = 1 / np.sqrt(_float64(normalization.moving_variance) + normalization.epsilon)
    if normalization.scale:
        scale *= _float64(normalization.gamma)
    bias = (_float64(old.bias) if old.use_bias else 0) - _float64(normalization.moving_mean)
    beta = _float64(normalization.beta) if normalization.center else 0
    # Output channels are the kernel's last axis, or the last two of a depthwise one: [height, width, in, multiplier].
    channels = old.kernel.shape[-2:] if isinstance(old, keras.layers.DepthwiseConv2D) else scale.shape
    new.set_weights([_float64(old.kernel) * scale.reshape(channels), beta + scale * bias])
    return new


def _float64(variable) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(variable), "float64")
