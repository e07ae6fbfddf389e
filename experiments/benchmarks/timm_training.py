"""Fine-tunes timm's MobileNet v1 from Keras' weights, with timm's own parts: `PYTHON timm_training.py JOB`.

Of a Python with PyTorch and timm, which need not have ktl or TensorFlow. JOB is a JSON file that
`benchmarks.fine_tuning` writes:

    weights: an .npz of Keras' variables, each by its layer and name, as in `conv_dw_1_bn/gamma`.
    width: multiple of the channels, 1 of the full network.
    image_size: side of a view, pixels.
    classes: how many.
    splits: train, validation and, where it is to be scored, test -> [[path of a photo, label], ...].
    epochs, batch_size, learning_rate, seed.
    threads: of PyTorch, and as many processes that decode.

Written to standard output, as JSON: seconds of the wall and of the processor from the building of the network to the
last score, peak memory, and top-1 of the epoch that is best on validation photos.

Augmentation, loss, optimizer and schedule are those of timm's train.py at its defaults, but for AdamW and its weight
decay of 0.05: random crops from 8 % of a photo on, flips, colour jitter 0.4, label smoothing 0.1, a cosine decay after
5 epochs of warm-up, no moving mean of weights.
"""

import copy
import json
import resource
import sys
import time

import numpy as np
import timm.data
import timm.loss
import timm.optim
import timm.scheduler
import timm.utils
import torch
from timm.models import efficientnet

LAYERS = {"conv1": "conv_stem", "conv1_bn": "bn1"}
"""Keras' name of a layer -> timm's; those of the blocks are in `timm_name`."""

BLOCKS = (1, 2, 2, 6, 2)
"""Depthwise convolutions of each stage."""

PARTS = {"conv_dw": "conv_dw", "conv_pw": "conv_pw", "conv_dw_bn": "bn1", "conv_pw_bn": "bn2"}
VARIABLES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}

WEIGHT_DECAY = 0.05
WARM_UP_EPOCHS = 5


def main() -> None:
    with open(sys.argv[1]) as file:
        job = json.load(file)
    torch.set_num_threads(job["threads"])
    started = time.perf_counter()
    cpu_before = cpu_seconds()
    found = train(job)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    used = {"seconds": time.perf_counter() - started, "cpu_seconds": cpu_seconds() - cpu_before, "peak_mib": peak}
    versions = {"timm": timm.__version__, "torch": torch.__version__}
    print(json.dumps({**used, **found, "versions": versions}))


def cpu_seconds() -> float:
    """Of this process, and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def train(job: dict) -> dict:
    """Trains, chooses the epoch by validation; validation and, where there are test photos, test top-1."""
    timm.utils.random_seed(job["seed"])
    model = network(job["weights"], width=job["width"], classes=job["classes"])
    loaders = {name: loader(job, model, name) for name in job["splits"]}
    rate, epochs = job["learning_rate"], job["epochs"]
    optimizer = timm.optim.create_optimizer_v2(model, opt="adamw", lr=rate, weight_decay=WEIGHT_DECAY)
    warm_up = min(WARM_UP_EPOCHS, epochs // 2)
    schedule, _ = timm.scheduler.create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=epochs, warmup_epochs=warm_up
    )
    loss = timm.loss.LabelSmoothingCrossEntropy()
    scores, best = [], None
    for epoch in range(epochs):
        train_epoch(model, loaders["train"], optimizer, loss)
        schedule.step(epoch + 1)
        scores.append(top1(model, loaders["validation"]))
        if scores[-1] > max(scores[:-1], default=-1):
            best = copy.deepcopy(model.state_dict())
    model.load_state_dict(best)
    tested = {"test_top1": top1(model, loaders["test"])} if "test" in loaders else {}
    return {"validation_top1": max(scores), **tested, "epochs": scores}


def train_epoch(model: torch.nn.Module, batches, optimizer, loss) -> None:
    model.train()
    for photos, labels in batches:
        optimizer.zero_grad()
        loss(model(photos.contiguous(memory_format=torch.channels_last)), labels).backward()
        optimizer.step()


@torch.no_grad()
def top1(model: torch.nn.Module, batches) -> float:
    model.eval()
    right = [
        model(photos.contiguous(memory_format=torch.channels_last)).argmax(1) == labels for photos, labels in batches
    ]
    return torch.cat(right).double().mean().item()


def loader(job: dict, model: torch.nn.Module, split: str):
    """Batches of a split, decoded anew in every epoch: augmented ones of the training photos, else the middle."""
    photos = job["splits"][split]
    training = split == "train"
    config = timm.data.resolve_model_data_config(model)
    return timm.data.create_loader(
        timm.data.ImageDataset("", reader=Photos(photos)),
        input_size=(3, job["image_size"], job["image_size"]),
        batch_size=min(job["batch_size"], len(photos)),  # the last batch of an epoch is dropped if it isn't full
        is_training=training,
        interpolation="random" if training else config["interpolation"],
        mean=config["mean"],
        std=config["std"],
        crop_pct=config["crop_pct"],
        num_workers=job["threads"],
        use_prefetcher=False,
    )


class Photos:
    """What timm's data set reads: [path, label] of each photo."""

    def __init__(self, photos: list):
        self.photos = photos

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int):
        path, label = self.photos[index]
        return open(path, "rb"), label


def network(weights: str, *, width: float, classes: int | None) -> torch.nn.Module:
    """timm's MobileNet v1 with Keras' weights.

    Keras' pads photos of even sides on the right and below alone, and adds 1e-3 to variances; both have ReLU6.

    Args:
        weights: the .npz file.
        width: multiple of the channels.
        classes: of a new classification layer; None keeps that of the file.
    """
    arrays = dict(np.load(weights))
    kept = len(arrays["conv_preds/bias"])
    # The public name `mobilenetv1_100` takes no other width.
    model = efficientnet._gen_mobilenet_v1(
        "mobilenetv1_100", channel_multiplier=width, num_classes=classes or kept, pad_type="same", bn_eps=1e-3
    )
    state = dict(timm_weight(name, array) for name, array in arrays.items())
    if classes:
        state |= {f"classifier.{part}": getattr(model.classifier, part).data for part in ("weight", "bias")}
    left = model.load_state_dict(state, strict=False)
    wrong = [name for name in left.missing_keys if not name.endswith("num_batches_tracked")] + left.unexpected_keys
    if wrong:
        raise ValueError(f"Expected the weights of a MobileNet of Keras. Received: other ones for {', '.join(wrong)}")
    return model.to(memory_format=torch.channels_last)


def timm_weight(name: str, array: np.ndarray) -> tuple[str, torch.Tensor]:
    """timm's name and layout of a variable of Keras.

    Kernels are [height, width, in, out] there and [out, in, height, width] here, depthwise ones [height, width,
    channels, 1] and [channels, 1, height, width].
    """
    layer, variable = name.split("/")
    if layer == "conv_preds":
        return f"classifier.{'bias' if variable == 'bias' else 'weight'}", torch.tensor(array.squeeze().T)
    order = (2, 3, 0, 1) if layer.startswith("conv_dw") else (3, 2, 0, 1)
    if variable == "kernel":
        return f"{timm_name(layer)}.weight", torch.tensor(array.transpose(order))
    return f"{timm_name(layer)}.{VARIABLES[variable]}", torch.tensor(array)


def timm_name(layer: str) -> str:
    """`blocks.1.0.bn2` for `conv_pw_2_bn`: Keras counts the blocks, timm the stages and the blocks of each."""
    if layer in LAYERS:
        return LAYERS[layer]
    kind, part, number, *norm = layer.split("_")
    places = [(stage, block) for stage, count in enumerate(BLOCKS) for block in range(count)]
    stage, block = places[int(number) - 1]
    return f"blocks.{stage}.{block}.{PARTS['_'.join([kind, part, *norm])]}"


if __name__ == "__main__":
    main()
