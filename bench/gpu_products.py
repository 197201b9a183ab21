"""Which of cuBLASLt's algorithms makes each product of GPT-2's training step, and how fast: asks
the CUDA library for all of them once, on random numbers, and prints its report; before it what is
further from PyTorch's products in f32 than the rounding to bf16 explains.

    python3 bench/gpu_products.py [CHANNELS [BATCH]]    768 32
"""

import ctypes
import glob
import os
import sys

import torch
from torch.nn import functional as F

T, PADDED_V = 1024, 50304


def newest(*patterns):
    found = [path for pattern in patterns for path in glob.glob(os.path.expanduser(pattern))]
    if not found:
        sys.exit(f"gpu_products.py: there is no {' or '.join(patterns)}")
    return max(found, key=os.path.getmtime)


def open_library():
    library = ctypes.CDLL(newest("build/*/native/libllm-cuda.so", "~/.cache/llm/*/libllm-cuda.so"))
    wheels = os.path.dirname(os.path.dirname(torch.__file__))
    name = "libcublasLt.so.1?"
    cublaslt = newest(f"{wheels}/nvidia/c*/lib/{name}", f"/usr/local/cuda*/lib64/{name}")
    if library.device_open(0, cublaslt.encode()):
        said = ctypes.create_string_buffer(256)
        library.device_message(said, 256)
        sys.exit(f"gpu_products.py: {said.value.decode()}")
    return library


def main():
    C, B = (int(given) for given in (sys.argv[1:] + ["768", "32"][len(sys.argv) - 1 :])[:2])
    N, rows = B * T, min(B * T, 8192)  # a classifier's rows at once
    library = open_library()
    torch.manual_seed(0)

    def numbers(*shape):
        return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)

    def nothing(like):
        return torch.full_like(like, float("nan"))

    def compare(what, got, expected):
        error = ((got.float() - expected).norm() / expected.norm()).item()
        if not error < 0.01:
            print(f"{what} is off by {error:.2g} of its norm")

    def call(name, *arguments):
        values = [ctypes.c_void_p(x.data_ptr() if torch.is_tensor(x) else None)
                  if x is None or torch.is_tensor(x) else ctypes.c_int(x) for x in arguments]
        getattr(library, f"{name}_bf16")(*values)

    layers = [  # inputs, outputs; a GELU behind it, a residual added, the input a GELU's result
        (C, 3 * C, False, False, False, N),
        (C, C, False, True, False, N),
        (C, 4 * C, True, False, False, N),
        (4 * C, C, False, True, True, N),
        (C, PADDED_V, False, False, False, rows),
    ]
    for inputs, outputs, gelu, residual, after_gelu, N in layers:
        is_head = outputs == PADDED_V
        inp, dout, weight = numbers(N, inputs), numbers(N, outputs), numbers(outputs, inputs)
        bias = None if is_head else numbers(outputs)
        added = numbers(N, outputs) if residual else None
        before = numbers(N, inputs) if after_gelu else None
        out, dinp, dweight = nothing(dout), nothing(inp), nothing(weight.float())
        pre = nothing(dout) if gelu else None
        dbias = None if is_head else nothing(bias.float())
        torch.cuda.synchronize()
        call("matmul_forward", out, pre, inp, weight, bias, added, None, N, inputs, outputs)
        call("matmul_backward_input", dinp, None, dout, weight, before, N, inputs, outputs, 0, 0)
        for accumulate in 0, 1:
            call("matmul_backward_weight", dweight, dbias, dout, inp, None, N, inputs, outputs,
                 accumulate)
        if library.device_wait():
            sys.exit(f"gpu_products.py: {inputs} to {outputs} failed")

        made = f"{inputs} to {outputs}:"
        linear = F.linear(inp.float(), weight.float(), None if is_head else bias.float())
        through = F.gelu(linear, approximate="tanh") if gelu else linear
        compare(f"{made} out", out, through + added.float() if residual else through)
        if gelu:
            compare(f"{made} pre", pre, linear)
        del linear, through
        expected = dout.float() @ weight.float()
        if after_gelu:
            at = before.float().requires_grad_()
            F.gelu(at, approximate="tanh").backward(expected)
            expected = at.grad
        compare(f"{made} dinp", dinp, expected)
        compare(f"{made} dweight", dweight, 2 * dout.float().T @ inp.float())  # added up twice
        if dbias is not None:
            compare(f"{made} dbias", dbias, 2 * dout.float().sum(0))

    text = ctypes.create_string_buffer(1 << 16)
    library.product_report(text, len(text))
    print(text.value.decode().rstrip())


main()
