"""The benchmark of bench/gpu.sh: sweeps batches of GPT-2's sizes with llm and with PyTorch, and
writes the table anew after every run, so that whatever ends it leaves what was measured."""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time

V, T = 50257, 1024
# As in the datasheets, of dense bf16 products, by what the name of the GPU holds.
DATASHEET_TERAFLOPS = {"H100 PCIe": 756, "H100": 989, "H200": 989, "A100": 312, "B200": 2250}
WARM_UP, LEAST, MEASURED_S = 6, 8, 6  # steps, steps, seconds
SHORT_S = 240  # up to which only the first model is run, at two batches
LEAST_S = 15  # in which a run of llm comes to something
SAVING = ["--recompute", "1", "--classifier-rows", "24576"]  # memory, at little cost


class Model:
    def __init__(self, name, L, C, batches, seconds):
        self.name, self.L, self.C, self.batches = name, L, C, batches
        self.seconds = seconds  # that a run of llm, and PyTorch's sweep, may take
        N = V * C + T * C + L * (12 * C * C + 13 * C) + 2 * C
        self.flops_a_token = 6 * N + 6 * L * C * T


# The most important first: what no time is left for is not run.
MODELS = [
    Model("124M", 12, 768, [32, 64, 128], (30, 170)),
    Model("1558M", 48, 1600, [16, 32], (60, 90)),
    Model("350M", 24, 1024, [16, 32, 64], (40, 70)),
]


class Memory(threading.Thread):
    """The most of the GPU's memory in use while it runs, by nvidia-smi: bytes above those before."""

    def __init__(self):
        super().__init__(daemon=True)
        self.done = threading.Event()
        self.before = self.most = self.now()
        self.start()

    def now(self):
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
        try:
            return int(subprocess.run(query, capture_output=True, text=True).stdout) * 2**20
        except (OSError, ValueError):
            return 0

    def run(self):
        while not self.done.wait(0.3):
            self.most = max(self.most, self.now())

    def peak(self):
        self.done.set()
        return max(self.most, self.now()) - self.before


def tokens_for(folder, count):
    """A token file of the built-in plays, over and over: at least `count` tokens, as large batches need."""
    llm = os.environ.get("LLM", "./llm")
    subprocess.run([llm, "data", "plays", "--out-dir", folder], check=True, capture_output=True)
    with open(os.path.join(folder, "plays_train.bin"), "rb") as file:
        head, text = file.read(1024), file.read()
    times = -(-count * 2 // len(text))
    head = head[:8] + struct.pack("<i", times * len(text) // 2) + head[12:]
    path = os.path.join(folder, "long.bin")
    with open(path, "wb") as file:
        file.write(head + text * times)
    return path


def run_llm(model, B, seconds, tokens, precision="bf16", more=()):
    """Tokens a second of steady steps, by when their lines came; then the run is ended."""
    llm = os.environ.get("LLM", "./llm")
    command = [llm, "train", tokens, "--val", tokens, "--init", f"gpt2:d{model.L}", "--batch", str(B), "--context", str(T)]
    command += ["--precision", precision, "--device", "cuda", "--steps", "1000"]
    command += ["--val-every", "0", "--sample-every", "0", *more]
    memory = Memory()
    with tempfile.TemporaryFile("w+") as errors:
        run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        timer = threading.Timer(seconds, run.kill)
        timer.start()
        times, lines = [], []
        for line in run.stdout:
            lines.append(line.strip())
            if not line.startswith("step "):
                continue
            times.append(time.perf_counter())
            steps = len(times) - 1 - WARM_UP
            if steps >= LEAST and times[-1] - times[WARM_UP] > MEASURED_S:
                break
        timer.cancel()
        peak = memory.peak()  # before it ends
        run.kill()
        run.wait()
        errors.seek(0)
        said = errors.read().strip().splitlines()
    steps = len(times) - 1 - WARM_UP
    if steps < 1:
        return {"batch": B, "error": (said or lines or ["nothing"])[-1][:200]}
    loss = re.search(r"loss (\S+)", lines[-1])
    rate = B * T * steps / (times[-1] - times[WARM_UP])
    return {"batch": B, "tokensPerSecond": rate, "peakBytes": peak, "loss": loss and loss[1]}


def run_python(arguments, seconds):
    """The lines of JSON of a script, as many as there are when the time is over."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        is_over = False
        try:
            command = [sys.executable, *arguments]
            subprocess.run(command, stdout=output, stderr=errors, timeout=seconds)
        except subprocess.TimeoutExpired:
            is_over = True
        output.seek(0)
        errors.seek(0)
        found = [json.loads(line) for line in output if line.startswith("{")]
        said = errors.read().strip().splitlines() or ["it said nothing"]
        return found or [{"error": "no time left" if is_over else said[-1][:200]}]


def run_pytorch(model, seconds):
    arguments = ["bench/pytorch_gpu.py", f"--layers={model.L}", f"--channels={model.C}"]
    arguments += ["--batches=" + ",".join(map(str, model.batches)), f"--seconds={seconds * 0.8}"]
    # A deep model takes too long to compile as one.
    arguments += ["--whole"] if model.L == 12 else ["--attention=cudnn,flash"]
    return run_python(arguments, seconds)


def said_by(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return done.stdout.strip() or done.stderr.strip()[-500:]
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)


def row(by, model, result, peaks):
    what = f"| {model.name} | {by} | {result.get('batch', '')} "
    if "error" in result:
        return what + f"| {result['error']} | | | |"
    rate = result["tokensPerSecond"]
    teraflops = rate * model.flops_a_token / 1e12
    shares = [f"{100 * teraflops / peak:.1f} %" if peak else "?" for peak in peaks]
    return what + f"| {rate:,.0f} | {' | '.join(shares)} | {result['peakBytes'] / 1e9:.1f} GB |"


def write(path, peak, rows, products):
    query = "--query-gpu=name,driver_version,memory.total"
    gpu = said_by("nvidia-smi", query, "--format=csv,noheader")
    head = ["# Training on one GPU", "", f"`bench/gpu.sh`, {time.strftime('%Y-%m-%d')}: {gpu}.", ""]
    if "teraflops" in peak:
        head += [
            f"PyTorch {peak['torch']}; a product of 8192³ in bf16 at {peak['teraflops']:.0f} TFLOP/s, "
            f"a copy at {peak['gigabytes']:.0f} GB/s.", ""]
    else:
        head += [f"No peak was measured: {peak.get('error')}.", ""]
    head += [
        "T=1024, bf16 with fp32 masters; products in eight bits where fp8 is named. MFU counts",
        "6·N + 6·L·C·T operations a token, of the rate above and of the datasheet's, both of products in",
        "bf16. Memory is what nvidia-smi saw; of PyTorch, what it says that it reserved, which leaves out",
        "some 0.5 GB of CUDA's own.", "",
        "| GPT-2 | by | batch | tokens/s | MFU | of the datasheet | memory |",
        "| ----- | -- | ----: | -------: | --: | ---------------: | -----: |"]
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "w") as file:
        file.write("\n".join(head + rows) + "\n")
        if products:
            file.write(f"\n## Products\n\n```\n{products}\n```\n")


def main():
    seconds, path = float(sys.argv[1]), sys.argv[2]
    until = time.perf_counter() + seconds
    left = lambda: until - time.perf_counter()
    if not shutil.which(os.environ.get("LLM", "./llm")):
        sys.exit("bench/gpu.py: no ./llm here (build it: bun run build; or name it in $LLM)")
    about = said_by(os.environ.get("LLM", "./llm"), "info")
    if not re.search(r"^GPU memory", about, re.M):
        print("bench/gpu.py: there is nothing to measure:", *re.findall(r"^GPU +(.*)", about, re.M), file=sys.stderr)
        sys.exit(2)
    peak = run_python(["bench/pytorch_gpu.py", "--peak"], min(60, left()))[-1]
    gpu = said_by("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    datasheet = next((rate for name, rate in DATASHEET_TERAFLOPS.items() if name in gpu), 0)
    peaks = [peak.get("teraflops", 0), datasheet]
    rows, products, measured = [], "", 0
    folder = tempfile.TemporaryDirectory()
    tokens = tokens_for(folder.name, 2 * T * max(B for model in MODELS for B in model.batches))

    def add(by, model, result):
        nonlocal measured
        rows.append(row(by, model, result, peaks))
        print(rows[-1], flush=True)
        measured += result.get("tokensPerSecond", 0) > 0
        if measured:
            write(path, peak, rows, products)

    def attempt(model, B, **how):
        """Tokens a second of a run of llm; 0 where it fails, or there is no time left for it."""
        if left() < LEAST_S:
            return 0
        result = run_llm(model, B, min(model.seconds[0], left()), tokens, **how)
        by = ["llm", *how.get("more", []), *([how["precision"]] if "precision" in how else [])]
        add(" ".join(by), model, result)
        return result.get("tokensPerSecond", 0)

    for model in MODELS if seconds > SHORT_S else MODELS[:1]:
        batches = model.batches if seconds > SHORT_S else model.batches[:2]
        rates = {B: attempt(model, B) for B in batches}
        if model is MODELS[0]:
            attempt(model, batches[-1], more=SAVING)
        best = max(rates, key=rates.get)
        if rates[best]:
            attempt(model, best, precision="fp8")
        if model is MODELS[0] and left() > LEAST_S:
            products = said_by(sys.executable, "bench/gpu_products.py")
            if measured:
                write(path, peak, rows, products)
        if left() > 30:
            for result in run_pytorch(model, min(model.seconds[1], left())):
                how = [result[key] for key in ("attention", "compiled") if key in result]
                add(", ".join(["PyTorch", *how]), model, result)
    if not measured:
        sys.exit("bench/gpu.py: nothing could be measured")


if __name__ == "__main__":
    main()
