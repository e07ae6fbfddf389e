"""Public names of version 0.1 that have moved: they work, and say where to."""

import dataclasses
import warnings

import keras

from ktl.arguments import checked_arguments
from ktl.errors import UserError
from ktl.models.boundaries import Boundary
from ktl.models.classifier import TransferClassifier
from ktl.models.flat_graph import Backbone


@dataclasses.dataclass(frozen=True)
class Network:
    """What `build_network` gave in version 0.1.

    Attributes:
        model: the TransferClassifier.
    """

    model: TransferClassifier

    @property
    def graph(self) -> keras.Model:
        """Pixels to logits, as a plain functional model."""
        return self.model.as_functional()

    @property
    def prefix(self) -> keras.Model:
        """Pixels to the boundary's tensor."""
        return self.model.prefix

    @property
    def suffix(self) -> keras.Model:
        """The boundary's tensor to logits."""
        return self.model.suffix

    @property
    def boundary(self) -> Boundary:
        """Where freezing ends."""
        return self.model.boundary

    @property
    def boundaries(self) -> tuple[Boundary, ...]:
        """Every place where it could end."""
        return self.model.boundaries

    @property
    def head_variables(self) -> list[keras.Variable]:
        """The new layers' trainable variables."""
        return self.model.new_variables


@checked_arguments
def build_network(backbone: Backbone, *, classes: int, freeze_depth: int | str = "none", **settings) -> Network:
    """Deprecated: `ktl.TransferClassifier(backbone, class_names=..., head=..., scale=..., freeze_depth=...)`."""
    _warn("build_network", "TransferClassifier")
    if classes < 2:
        raise UserError(f"Expected `classes` to be at least 2. Received: {classes}")
    names = [f"class {number}" for number in range(classes)]
    return Network(TransferClassifier(backbone, class_names=names, freeze_depth=freeze_depth, **settings))


@checked_arguments
def freeze(network: Network, freeze_depth: int | str) -> Network:
    """Deprecated: `TransferClassifier.freeze(freeze_depth)`. The network that is given changes, and is given back."""
    _warn("freeze", "TransferClassifier.freeze")
    network.model.freeze(freeze_depth)
    return network


def _warn(old: str, new: str) -> None:
    warnings.warn(f"ktl.{old} is deprecated: use ktl.{new}", DeprecationWarning, stacklevel=4)  # over the checks
