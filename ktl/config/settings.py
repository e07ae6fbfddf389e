"""Settings of runs, searches and studies: the one source of flags, defaults, helps and JSON. Imports nothing heavy."""

import dataclasses
import hashlib
import json
import math
import os
import shlex
from collections.abc import Mapping

from ktl.config.space import DIMENSIONS, parse_space, write_space
from ktl.errors import UserError, unknown_name
from ktl.models.heads import HEADS, find_head


def setting(default, group: str, help: str, *, choices=None, least=None, most=None, decisive=True):
    """A dataclass field that is also a flag of that group, with its allowed values or its (inclusive) limits.

    A setting that is not decisive changes where or how fast things happen, and no number.
    """
    metadata = {"group": group, "help": help, "choices": choices, "least": least, "most": most, "decisive": decisive}
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def flag_of(name: str) -> str:
    """The command line's flag of the argument of that name."""
    return "--" + name.replace("_", "-")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The settings of a run. Two runs whose decisive settings (`as_dict`) are equal are the same run.

    Raises:
        UserError: a value outside of its choices or limits.
    """

    SCRIPT = "run"

    dataset: str = setting(
        dataclasses.MISSING,
        "data",
        "a TensorFlow Datasets name (stanford_dogs, oxford_flowers102, ...), caltech256, digits, "
        "a folder of class folders, or a CSV of path,label[,split]",
    )
    data_dir: str | None = setting(None, "data", "folder with data sets that TensorFlow Datasets has prepared")
    image_size: int | None = setting(
        None, "data", "side of the square input in pixels; the backbone's own if not given", least=32
    )
    augmentation: str = setting("standard", "data", "random crops and flips, or none", choices=("standard", "none"))
    on_bad_image: str = setting("fail", "data", "what to do about photos that cannot be read", choices=("fail", "skip"))
    memory_gib: float = setting(
        2.0,
        "data",
        "memory for decoded photos, in GiB; what is beyond it is read again each epoch",
        least=0,
        decisive=False,
    )

    cache: str = setting(
        "auto",
        "cache",
        "compute the frozen layers once and keep what they give; auto = where it pays and fits",
        choices=("auto", "on", "off"),
    )
    cache_views: int = setting(4, "cache", "augmented views of each training photo that the cache keeps", least=1)
    cache_dtype: str = setting(
        "auto",
        "cache",
        "numbers in the cache; auto = float32, float16 under mixed precision",
        choices=("auto", "float32", "float16"),
    )
    cache_dir: str | None = setting(
        None, "cache", "the cache's folder; ktl in the user's cache folder if not given", decisive=False
    )
    cache_limit: float | None = setting(
        None,
        "cache",
        "the most that the cache's folder takes, in GiB; half of the free disk if not given",
        least=0,
        decisive=False,
    )

    backbone: str = setting(
        "efficientnetv2b0", "network", "a name that `ktl backbones` lists, or a classifier's .keras file"
    )
    weights: str = setting("imagenet", "network", "imagenet, random, or a weights file")
    head: str = setting("kept", "network", "what the new layers read", choices=tuple(HEADS))
    scale: float = setting(
        3.0, "network", "initial norm of what the new layers read, where the head normalises it", least=1e-3
    )
    hidden_units: int = setting(0, "network", "width of one more new Dense layer, 0 for none", least=0)
    freeze_depth: str = setting(
        "auto", "network", "freeze up to here: none, all, a number or layer name that `ktl boundaries` lists, or auto"
    )

    epochs: int = setting(15, "training", "passes over the training photos", least=1)
    batch_size: int = setting(32, "training", "photos a step, over all GPUs", least=1)
    optimizer: str = setting("adamw", "training", "adamw, or sgd with momentum 0.9", choices=("adamw", "sgd"))
    learning_rate: float = setting(1e-3, "training", "peak learning rate of the pre-trained layers", least=0)
    head_multiplier: float = setting(
        10.0, "training", "the new layers' learning rate, as a multiple of the pre-trained ones'", least=0
    )
    warmup_epochs: float = setting(1.0, "training", "epochs of linear warm-up before the cosine decay", least=0)
    weight_decay: float = setting(
        1e-4, "training", "decoupled weight decay of kernels; norms and biases have none", least=0
    )
    label_smoothing: float = setting(0.0, "training", "share of each label spread over all classes", least=0, most=0.99)
    patience: int = setting(
        5, "training", "stop after so many epochs without a better validation top-1; 0 never stops", least=0
    )
    seed: int = setting(
        0,
        "training",
        "seed of initial weights, order and augmentation; cached views are the same for all",
        least=0,
        most=2**31 - 1,
    )

    xla: str = setting("auto", "machine", "compile with XLA; auto = on a GPU", choices=("auto", "on", "off"))
    precision: str = setting(
        "auto",
        "machine",
        "arithmetic; auto = mixed on a GPU that has it, else float32",
        choices=("auto", "float32", "mixed_float16", "mixed_bfloat16"),
    )
    strategy: str = setting(
        "auto", "machine", "auto = all GPUs, each with a part of every batch", choices=("auto", "none")
    )
    deterministic: bool = setting(
        False, "machine", "the same numbers every time on the same machine; slower, and without XLA"
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))
        if self.deterministic and self.xla == "on":
            raise UserError(
                "Expected `xla` auto or off with `deterministic`: they exclude each other. Received: `xla` on"
            )

    def as_dict(self) -> dict:
        """The settings that decide a run's numbers, as JSON has them."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.metadata["decisive"]}

    def run_config(self, values: Mapping) -> "RunConfig":
        """The settings of a run in which the settings of these names have these values."""
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(RunConfig)}
        return RunConfig(**{**settings, **values})

    def flags(self) -> list[str]:
        """The command line's flags for these settings; those at their defaults are left out."""
        found = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                found.append(flag_of(field.name))
                found += [] if value is True else [str(value)]
        return found

    @property
    def files(self) -> list[str]:
        """Files on this machine that the settings name, whose content decides too."""
        named = (getattr(self, name, None) for name in ("backbone", "weights", "synsets"))
        return [path for path in named if path and os.path.isfile(path)]

    def command(self) -> str:
        """What a shell takes to do it; the folder that it writes to left open."""
        return shlex.join(["python", f"experiments/{self.SCRIPT}.py", *self.flags()])

    def fingerprint(self) -> str:
        """Eight hexadecimal digits that differ when any decisive setting does."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()[:8]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig(RunConfig):
    """The settings of a search: those of its runs, and how they are varied.

    Raises:
        UserError: a value outside of its choices or limits, or an unknown dimension of the space.
    """

    SCRIPT = "search"

    space: str = setting(
        "freeze_depth,scale",
        "search",
        f"what is varied: names, each with =value,value,... or its default values, or a JSON file of them; "
        f"of {', '.join(DIMENSIONS)}",
    )
    oracle: str = setting(
        "auto",
        "search",
        "which values are tried: auto = grid where the space has at most --max-trials points, else bayesian",
        choices=("auto", "grid", "random", "bayesian", "hyperband"),
    )
    max_trials: int = setting(
        50, "search", "the most trials, failed ones included; hyperband follows its own plan", least=1
    )
    seeds: int = setting(1, "search", "seeds that a trial's score is the mean of, from --seed on", least=1)
    keep: int = setting(3, "search", "trials whose models are kept", least=1, decisive=False)
    workers: int = setting(
        1,
        "search",
        "processes that run trials on this machine, one a GPU or each with its share of the cores",
        least=1,
        decisive=False,
    )
    tensorboard: bool = setting(
        False, "search", "write logs for TensorBoard's HParams page into tensorboard/", decisive=False
    )

    def __post_init__(self):
        super().__post_init__()
        space = parse_space(self.space)
        if self.space.endswith(".json"):  # read once: the file may change while the search runs
            object.__setattr__(self, "space", write_space(space))
        for name, values in space.items():
            for value in values or ():
                self.run_config({name: value})

    def as_dict(self) -> dict:
        """As RunConfig's, with the space's values in the place of its text or file."""
        space = {name: list(values) if values else None for name, values in parse_space(self.space).items()}
        return {**super().as_dict(), "space": space}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyConfig(RunConfig):
    """The settings of a study: those that its runs share, and what it compares. `seed` is the first of the seeds.

    Raises:
        UserError: a value outside of its choices or limits, an unknown head, or a value of what a study varies.
    """

    SCRIPT = "study"
    VARIED = ("head", "freeze_depth", "learning_rate", "scale")

    heads: str = setting(",".join(HEADS), "study", "heads that are compared, separated by commas")
    depths: str | None = setting(
        None, "study", "freeze depths, separated by commas; six in the second half of the forward pass if not given"
    )
    shares: str = setting(
        "0.1,0.25,0.5",
        "study",
        "shares of the training photos for each head's best depth, separated by commas; or none",
    )
    seeds: int = setting(5, "study", "seeds of every comparison, from --seed on", least=1)
    synsets: str | None = setting(
        None,
        "study",
        "a CSV file of class,synset, with WordNet ids: the classes that ImageNet has too, where names do not tell",
    )

    def __post_init__(self):
        super().__post_init__()
        for name in self.VARIED:
            if (value := getattr(self, name)) != getattr(type(self), name):
                raise UserError(f"Expected no `{name}` for a study, which varies it. Received: {value}")
        if not self.head_names:
            raise UserError("Expected `heads` with at least one head. Received: none")
        for head in self.head_names:
            find_head(head)
        for share in self.share_values:
            if not 0 < share < 1:
                raise UserError(f"Expected `shares` between 0 and 1. Received: {share:g}")

    @property
    def head_names(self) -> tuple[str, ...]:
        return _words(self.heads)

    @property
    def depth_names(self) -> tuple[str, ...]:
        return _words(self.depths or "")

    @property
    def share_values(self) -> tuple[float, ...]:
        words = () if self.shares == "none" else _words(self.shares)
        try:
            return tuple(float(word) for word in words)
        except ValueError as error:
            raise UserError(f"Expected `shares` as numbers, or none. Received: {self.shares}") from error


def _words(text: str) -> tuple[str, ...]:
    """Each of the words between commas or blanks, once."""
    return tuple(dict.fromkeys(text.replace(",", " ").split()))


def _check(field, value) -> None:
    rules = field.metadata
    name = f"`{field.name}`"
    if rules["choices"] and value not in rules["choices"]:
        raise unknown_name(name, value, rules["choices"])
    if value is None:
        return
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"Expected {name} to be a finite number. Received: {value}")
    if rules["least"] is not None and not value >= rules["least"]:
        raise UserError(f"Expected {name} to be at least {rules['least']}. Received: {value}")
    if rules["most"] is not None and not value <= rules["most"]:
        raise UserError(f"Expected {name} to be at most {rules['most']}. Received: {value}")
