"""The settings of runs, searches and studies: the one source of flags, defaults, helps and JSON.

Imports nothing heavy.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

from ktl.config.base import Config
from ktl.config.fields import DEPTH, DEPTH_LIST, HEAD_LIST, SHARE_LIST, SHOT_LIST, setting
from ktl.config.space import DIMENSIONS, SPACE
from ktl.errors import UserError, unknown_name
from ktl.evaluation.objectives import OBJECTIVES
from ktl.models.heads import AUTO, HEADS


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig(Config):
    """What runs, searches and studies have in common: the data, the backbone, how it is trained, and on what.

    Each setting takes Python values as well as what its flag takes, and keeps them in one form. Two configs of one
    class whose decisive settings (`as_dict`) are equal mean the same work.

    Raises:
        UserError: a value of another type, or outside of its choices or limits.
    """

    ADDED: ClassVar[Mapping] = {"class_weight": "none", "least_steps": 1, "flip": "auto", "objective": "top1"}
    RENAMED: ClassVar[Mapping[str, str]] = {"cache_views": "views"}

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
    flip: str = setting(
        "auto",
        "data",
        "mirror half of the training views; auto = unless a mirrored photo of the data set means something else",
        choices=("auto", "on", "off"),
    )
    views: int = setting(
        4, "data", "augmented views of each training photo, over which passes cycle, cached or not", least=1
    )
    on_bad_image: str = setting("fail", "data", "what to do about photos that cannot be read", choices=("fail", "skip"))
    memory_gib: float = setting(
        2.0,
        "data",
        "memory for decoded photos, in GiB; what is beyond it is read again in each pass",
        least=0,
        decisive=False,
    )

    cache: str = setting(
        "auto",
        "cache",
        "compute the frozen layers once and keep what they give; auto = where it pays and fits",
        choices=("auto", "on", "off"),
    )
    cache_dtype: str = setting(
        "auto",
        "cache",
        "numbers in the cache; auto = float32, float16 under mixed precision",
        choices=("auto", "float32", "float16"),
    )
    cache_dir: str | None = setting(
        None, "cache", "the cache's folder, or its URL; ktl in the user's cache folder if not given", decisive=False
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
    hidden_units: int = setting(0, "network", "width of one more new Dense layer, 0 for none", least=0)

    epochs: int = setting(
        15, "training", "the most passes over the training photos, each of --least-steps steps or more", least=1
    )
    batch_size: int = setting(32, "training", "photos a step, over all GPUs", least=1)
    least_steps: int = setting(
        32, "training", "optimizer steps an epoch at least: of few photos it makes several passes", least=1
    )
    optimizer: str = setting("adamw", "training", "adamw, or sgd with momentum 0.9", choices=("adamw", "sgd"))
    warmup_epochs: float = setting(1.0, "training", "epochs of linear warm-up before the cosine decay", least=0)
    weight_decay: float = setting(
        0.0,
        "training",
        "share of each kernel that decay alone takes away over the whole training; norms and biases have none",
        least=0,
        most=0.99,
    )
    label_smoothing: float = setting(0.0, "training", "share of each label spread over all classes", least=0, most=0.99)
    class_weight: str = setting(
        "none",
        "training",
        "weights of the classes in the loss; balanced = training photos / (classes * those of the class)",
        choices=("none", "balanced"),
    )
    objective: str = setting(
        "top1",
        "training",
        "score of the validation photos that chooses the epoch, trials and what a study takes, and ends a training",
        choices=tuple(OBJECTIVES),
    )
    patience: int = setting(
        5, "training", "stop after so many epochs without a better validation; 0 never stops", least=0
    )
    seed: int = setting(
        0,
        "training",
        "seed of initial weights, of the order, and of when each view is shown; the views are the same for all",
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
    deterministic: bool = setting(False, "machine", "the same numbers every time on a machine; slower, without XLA")

    def __post_init__(self):
        super().__post_init__()
        if self.deterministic and self.xla == "on":
            raise UserError(
                "Expected `xla` auto or off with `deterministic`: they exclude each other. Received: `xla` on"
            )

    def run_config(self, values: Mapping) -> "RunConfig":
        """The settings of a run in which the settings of these names have these values."""
        names = {field.name for field in dataclasses.fields(RunConfig)} & {f.name for f in dataclasses.fields(self)}
        return RunConfig(**{**{name: getattr(self, name) for name in names}, **values})


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(TrainingConfig):
    """The settings of a run, as in `ktl.run(ktl.RunConfig(dataset="photos", epochs=5))`."""

    SCRIPT = "run"
    ADDED: ClassVar[Mapping] = {**TrainingConfig.ADDED, "refit": "off", "folds": 0}

    head: str = setting(
        "kept",
        "network",
        "what the new layers read; auto = what linear probes of the training photos choose, in seconds",
        choices=(*HEADS, AUTO),
    )
    scale: float = setting(
        3.0, "network", "initial norm of what the new layers read, where the head normalises it", least=1e-3
    )
    freeze_depth: str = setting(
        "auto",
        "network",
        "freeze up to here: none, all, a number or name that `ktl boundaries` lists, or auto, which the head decides",
        form=DEPTH,
    )
    learning_rate: float = setting(1e-3, "training", "peak learning rate of the pre-trained layers", least=0)
    head_multiplier: float = setting(
        10.0, "training", "the new layers' learning rate, as a multiple of the pre-trained ones'", least=0
    )
    refit: str = setting(
        "auto",
        "training",
        "train a second time, on validation photos too; auto = with under 6 training photos a class",
        choices=("auto", "on", "off"),
    )
    folds: int = setting(
        0,
        "training",
        "choose the epoch by so many folds of training and validation photos, then refit; 0 = none",
        least=0,
    )

    def __post_init__(self):
        super().__post_init__()
        if self.folds == 1:
            raise UserError("Expected `folds` to be 0, or 2 and more. Received: 1")
        if self.folds and self.SCRIPT != "run":
            raise UserError(f"Expected `folds` to be 0 in a {self.SCRIPT}. Received: {self.folds}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig(RunConfig):
    """The settings of a search: `ktl.SearchConfig(dataset="photos", space={"scale": [1, 10]})`, and those of its runs.

    Raises:
        UserError: a value outside of its choices or limits, or an unknown dimension of the space.
    """

    SCRIPT = "search"

    space: Mapping[str, Sequence | None] = setting(
        "freeze_depth,scale",
        "search",
        f"what is varied: names, each with =value,value,... or its default values, or a JSON file of them; "
        f"of {', '.join(DIMENSIONS)}",
        form=SPACE,
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
    seeds: int | None = setting(
        None,
        "search",
        "seeds that a trial's score is the mean of, from --seed on; 3 where fewer than 200 photos are for validation, "
        "else 1, if not given",
        least=1,
    )
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
        for name, values in self.space.items():
            for value in values or ():
                self.run_config({name: value})


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyConfig(TrainingConfig):
    """The settings of a study: `ktl.StudyConfig(dataset="photos", heads=["kept"])`. `seed` is the first of the seeds.

    Raises:
        UserError: a value of another type, outside of its choices or limits, or an unknown head.
    """

    SCRIPT = "study"
    ADDED: ClassVar[Mapping] = {**TrainingConfig.ADDED, "shots": "none"}
    VARIED = ("head", "freeze_depth", "learning_rate", "scale", "head_multiplier")

    heads: Sequence[str] = setting(
        ",".join(HEADS), "study", "heads that are compared, separated by commas", form=HEAD_LIST
    )
    depths: Sequence[str | int] | None = setting(
        None,
        "study",
        "freeze depths, separated by commas; six in the second half of the forward pass if not given",
        form=DEPTH_LIST,
    )
    shares: Sequence[float] = setting(
        "none",
        "study",
        "shares of the training photos at each head's and the baseline's best depth, separated by commas; or none",
        form=SHARE_LIST,
    )
    shots: Sequence[int] = setting(
        "none",
        "study",
        "numbers of training photos a class at the same depths, separated by commas; or none",
        form=SHOT_LIST,
    )
    seeds: int = setting(
        5, "study", "seeds of every comparison, from --seed on, each with its own draw of every part", least=1
    )
    synsets: str | None = setting(
        None,
        "study",
        "a CSV file of class,synset, with WordNet ids: the classes that ImageNet has too, where names do not tell",
    )

    def __post_init__(self):
        super().__post_init__()
        for head in self.heads:
            if head not in HEADS:
                raise unknown_name("each of `heads`", head, HEADS)
