"""The training step that `bun run bench step` times, in PyTorch, for comparison: GPT-2 124M in fp32
on the CPU, forward, backward, clipping and fused AdamW, on random tokens.

    pip install torch==2.13.0 && python bench/pytorch_step.py [--batch 4] [--context 64] [--compile]
"""

import argparse
import resource
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F

L, NH, C, V, MAX_T = 12, 12, 768, 50257, 1024
PADDED_V = 50304  # as llm.c pads it: a multiple of 128


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.qkv, self.attproj = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.fc, self.fcproj = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)

    def forward(self, x):
        B, T, _ = x.shape
        q, k, v = self.qkv(self.ln1(x)).view(B, T, 3, NH, C // NH).permute(2, 0, 3, 1, 4)
        att = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attproj(att.transpose(1, 2).reshape(B, T, C))
        return x + self.fcproj(F.gelu(self.fc(self.ln2(x)), approximate="tanh"))


class GPT2(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(PADDED_V, C), nn.Embedding(MAX_T, C)
        self.blocks = nn.ModuleList(Block() for _ in range(L))
        self.lnf = nn.LayerNorm(C)

    def forward(self, tokens, targets):
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.lnf(x), self.wte.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()

    model = GPT2()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)
    forward = torch.compile(model) if args.compile else model
    tokens, targets = torch.randint(V, (2, args.batch, args.context))

    def step():
        forward(tokens, targets).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    times = []
    for _ in range(args.steps + 2):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, {args.batch}×{args.context}")
    print(f"step {statistics.median(times[2:]) * 1000:.0f} ms, {resident:.2f} GB at most")


main()
