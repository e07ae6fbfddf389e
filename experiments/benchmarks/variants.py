"""Other ways to compute the frozen layers: a variant is a row."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Variant:
    """How a sample is computed.

    Attributes:
        batch: photos a step.
        share: of the sample that is computed; on a CPU, XLA needs minutes where the others need seconds.
        precision: a Keras dtype policy.
        xla: whether to compile with XLA.
        folded: whether batch normalizations are folded into the layers before them, as the cache does it.
        onednn_bfloat16: whether TensorFlow may compute convolutions in bfloat16.
        inter_op_threads: operations at a time; 0 for as many as TensorFlow likes.
        intra_op_threads: threads of an operation; 0 for as many as TensorFlow likes.
        engine: what computes: TensorFlow; TensorFlow with weights that are constants of the graph; or another runtime,
            on as many threads as there are cores.
    """

    batch: int = 64
    share: float = 1.0
    precision: str = "float32"
    xla: bool = False
    folded: bool = True
    onednn_bfloat16: bool = False
    inter_op_threads: int = 0
    intra_op_threads: int = 0
    engine: Literal["tensorflow", "constants", "litert", "onnx"] = "tensorflow"


VARIANTS = {
    "batch_64": Variant(),
    "batch_32": Variant(batch=32),
    "batch_128": Variant(batch=128),
    "unfolded": Variant(folded=False),
    "xla": Variant(xla=True, share=0.25),
    "mixed_bfloat16": Variant(precision="mixed_bfloat16"),
    "onednn_bfloat16": Variant(onednn_bfloat16=True),
    "constants": Variant(engine="constants"),
    "litert": Variant(engine="litert", batch=16),
    "onnx": Variant(engine="onnx"),
    "one_thread_op": Variant(inter_op_threads=1, intra_op_threads=2),
}
