"""Quantizes the tensors of one GGUF file, which are f32, and compares them with another's, byte by
byte: python quantize.py F32.gguf OTHER.gguf"""

import sys

import numpy as np
from gguf import GGUFReader
from gguf.quants import quantize

wide, other = (GGUFReader(path) for path in sys.argv[1:])
originals = {tensor.name: tensor for tensor in wide.tensors}
for tensor in other.tensors:
    original = originals.pop(tensor.name)
    assert original.shape.tolist() == tensor.shape.tolist(), tensor.name
    expected = quantize(np.array(original.data), tensor.tensor_type)
    assert expected.tobytes() == tensor.data.tobytes(), tensor.name
assert not originals, list(originals)
print(len(other.tensors), "tensors")
