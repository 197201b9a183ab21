"""The rival of bench/gpu.py: a training step of GPT-2 in PyTorch on a GPU, as fast as its settings
make it: torch.compile, bf16 autocast over fp32 weights, fused AdamW, and each attention kernel that
it has. Prints a line of JSON for every setting that was measured, as soon as it is.

    python3 bench/pytorch_gpu.py --layers 12 --channels 768 --batches 32,64 [--seconds 120]
    python3 bench/pytorch_gpu.py --peak     what the GPU can do: a large product, a large copy
"""

import argparse
import json
import os
import time

# A cached backward pass would keep the attention of the setting before.
os.environ["TORCHINDUCTOR_AUTOGRAD_CACHE"] = "0"

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

V, PADDED_V, T = 50257, 50304, 1024
ATTENTION = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
WARM_UP, ESTIMATED, LEAST, MOST = 5, 3, 8, 40  # steps
MEASURED_S = 5


class Block(nn.Module):
    def __init__(self, C, NH):
        super().__init__()
        self.NH = NH
        self.ln1, self.ln2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.qkv, self.attproj = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.fc, self.fcproj = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = self.qkv(self.ln1(x)).view(B, T, 3, self.NH, C // self.NH).permute(2, 0, 3, 1, 4)
        att = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attproj(att.transpose(1, 2).reshape(B, T, C))
        return x + self.fcproj(F.gelu(self.fc(self.ln2(x)), approximate="tanh"))


class GPT2(nn.Module):
    def __init__(self, L, NH, C):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(PADDED_V, C), nn.Embedding(T, C)
        self.blocks = nn.ModuleList(Block(C, NH) for _ in range(L))
        self.lnf = nn.LayerNorm(C)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def embed(self, tokens):
        return self.wte(tokens) + self.wpe(torch.arange(T, device=tokens.device))

    def loss(self, x, targets):
        logits = F.linear(self.lnf(x), self.wte.weight)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    def forward(self, tokens, targets):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.loss(x, targets)


def compiled(model, whole):
    """The whole model as one, or its parts: the blocks are compiled once for all of them, which is
    sooner done, and the only way for a deep one."""
    if whole:
        return torch.compile(model, dynamic=False)
    for block in model.blocks:
        block.compile(dynamic=False)
    model.loss = torch.compile(GPT2.loss.__get__(model), dynamic=False)
    return model


def measure(model, run, optimizer, B, until):
    """Tokens a second, and the seconds before: of compiling, mostly."""
    tokens, targets = torch.randint(V, (2, B, T), device="cuda")

    def step():
        with torch.autocast("cuda", torch.bfloat16):
            loss = run(tokens, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    def timed(steps):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            loss = step()
        if not torch.isfinite(loss):  # waits, too
            raise RuntimeError(f"the loss is {loss.item()}")
        torch.cuda.synchronize()
        return time.perf_counter() - start

    prepared = timed(WARM_UP)
    estimate = timed(ESTIMATED) / ESTIMATED
    left = min(MEASURED_S, until - time.perf_counter())
    steps = max(LEAST, min(MOST, int(left / estimate)))
    return B * T * steps / timed(steps), prepared


def report(**values):
    print(json.dumps(values), flush=True)


def sweep(args):
    until = time.perf_counter() + args.seconds
    torch.set_float32_matmul_precision("high")
    batches = [int(batch) for batch in args.batches.split(",")]
    attention = args.attention.split(",")
    with torch.device("cuda"):
        model = GPT2(args.layers, args.channels // 64, args.channels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)

    def attempt(B, name, whole):
        setting = dict(batch=B, attention=name, compiled="whole" if whole else "blocks")
        if time.perf_counter() > until:
            return report(**setting, error="no time left")
        torch._dynamo.reset()
        for block in model.blocks:
            block._compiled_call_impl = None
        model.__dict__.pop("loss", None)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        try:
            with sdpa_kernel(ATTENTION[name]):
                rate, prepared = measure(model, compiled(model, whole), optimizer, B, until)
            peak, used = torch.cuda.max_memory_reserved(), torch.cuda.max_memory_allocated()
            report(**setting, tokensPerSecond=rate, preparedSeconds=prepared, peakBytes=peak,
                   usedBytes=used)
            return rate
        except torch.OutOfMemoryError:
            report(**setting, error="out of memory")
        except Exception as error:  # whatever a setting may not support
            report(**setting, error=f"{type(error).__name__}: {error}".split("\n")[0][:200])
        optimizer.zero_grad(set_to_none=True)

    # The attention is chosen at the first batch, the others take the best.
    rates = {name: attempt(batches[0], name, False) or 0 for name in attention}
    best = max(rates, key=rates.get)
    if args.whole:
        attempt(batches[0], best, True)
    for B in batches[1:]:
        attempt(B, best, args.whole)


def median_ms(work, times=20):
    for _ in range(3):
        work()
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(times)]
    for from_, to in events:
        from_.record()
        work()
        to.record()
    torch.cuda.synchronize()
    return sorted(from_.elapsed_time(to) for from_, to in events)[times // 2]


def peak():
    n = 8192
    a, b = torch.randn(2, n, n, device="cuda", dtype=torch.bfloat16)
    product = median_ms(lambda: a @ b)
    source = torch.empty(2**31, device="cuda", dtype=torch.uint8).random_()
    target = torch.empty_like(source)
    copy = median_ms(lambda: target.copy_(source))
    report(teraflops=2 * n**3 / product / 1e9, gigabytes=2 * source.numel() / copy / 1e6,
           torch=torch.__version__, gpu=torch.cuda.get_device_name())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--peak", action="store_true")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--channels", type=int, default=768)
    parser.add_argument("--batches", default="32")
    parser.add_argument("--attention", default=",".join(ATTENTION))
    parser.add_argument("--whole", action="store_true", help="compile the model as one in the end")
    parser.add_argument("--seconds", type=float, default=1e9)
    args = parser.parse_args()
    peak() if args.peak else sweep(args)


main()
