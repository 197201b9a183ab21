#!/bin/bash
# Everything that only a GPU can show, in one go, on a bare machine: a driver, python3 with PyTorch (whose
# cuBLASLt is taken), gcc; no network, no node, no bun. What the sources lack lies in build/gpu.tar.xz
# (test/gpu-pack.sh), or is there already.
#
#     bash test/gpu.sh [--seconds 480] [--skip PART,PART] [--only PART,PART] [--out FOLDER]
#
# Every part has a limit of its own, and what is left of the time; none stops those after it. FOLDER
# (build/gpu/results, or $OUT) gets results.txt, a line PASS, FAIL or SKIP a part, and a log of each.
set -u
cd "$(dirname "$0")/.."
seconds=480 skip='' only='' out=${OUT:-build/gpu/results}
while [ $# -gt 0 ]; do
    case $#$1 in 1--seconds | 1--skip | 1--only | 1--out) echo "test/gpu.sh: $1 needs a value" && exit 2 ;; esac
    case $1 in
    -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0" && exit ;;
    --seconds) seconds=$2 ;;
    --skip) skip=,$2, ;;
    --only) only=,$2, ;;
    --out) out=$2 ;;
    *) echo "test/gpu.sh knows no $1" && exit 2 ;;
    esac
    shift 2
done
parts='ops model train losses eight resume twice refusal monitor memcheck racecheck bench'
for name in $(echo "$only$skip" | tr , ' '); do
    case " $parts " in *" $name "*) ;; *) echo "test/gpu.sh has no part $name, but $parts" && exit 2 ;; esac
done
mkdir -p "$out"
out=$(cd "$out" && pwd)
results=$out/results.txt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
: > "$results"
say() { echo "$*" | tee -a "$results"; }

# part NAME LIMIT COMMAND...: runs it for at most LIMIT seconds.
failed=0
part() {
    local name=$1 limit=$2 left=$((seconds - SECONDS)) start=$SECONDS status
    shift 2
    case $skip in *,$name,*) say "SKIP $name: left out" && return ;; esac
    [ -z "$only" ] || case $only in *,$name,*) ;; *) return ;; esac
    [ "$left" -ge 5 ] || { say "SKIP $name: no time left" && return; }
    [ "$limit" -le "$left" ] || limit=$left
    timeout -k 5 "$limit" "$@" > "$out/$name.log" 2>&1
    status=$?
    if [ $status -eq 0 ]; then
        say "PASS $name ($((SECONDS - start)) s)"
    elif [ $status -eq 77 ]; then
        say "SKIP $name: $(tail -n 1 "$out/$name.log")"
    else
        [ $status -ne 124 ] || echo "out of its $limit s" >> "$out/$name.log"
        say "FAIL $name ($((SECONDS - start)) s, status $status): $(grep -v '^$' "$out/$name.log" | tail -n 3 | tr '\n' '|')"
        failed=1
    fi
}

unpack() {
    python3 -c 'import tarfile; tarfile.open("build/gpu.tar.xz").extractall(".")'
    touch build/*/native/*.so* llm # newer than the sources: they are not built again
}
# What was built after it was packed is not replaced.
[ ! -e build/gpu.tar.xz ] || [ llm -nt build/gpu.tar.xz ] || unpack
export LLM_CACHE=$work/cache LLM_TEST_GPU=1
mkdir -p "$LLM_CACHE"
llm() { ./llm "$@"; }
bun_test() { BUN_BE_BUN=1 ./llm test --timeout 120000 "$@"; }
export -f llm bun_test

machine() {
    nvidia-smi || true
    ./llm info
}
machine > "$out/machine.log" 2>&1
if ! grep -q '^GPU memory' "$out/machine.log"; then
    say "there is nothing to test on: $(sed -n 's/^GPU  *//p' "$out/machine.log")"
    exit 2
fi
say "PASS machine: $(sed -n 's/^GPU  *//p' "$out/machine.log")"

# Small runs on the built-in corpus. Nothing but the steps.
QUIET='--val-every 0 --sample-every 0'
SMALL="--layers 4 --heads 2 --channels 128 --batch 2 --context 128 $QUIET"
D12="--init gpt2:d12 --batch 8 --context 1024 $QUIET"
export QUIET SMALL D12 work

# compare A B MOST [means]: how far A's losses are from B's, step by step and in the mean of the last third;
# at most MOST of every step, or with `means` of that mean: where losses fall fast, one step ahead is far.
compare() {
    python3 - "$@" <<'END'
import json, math, sys
a, b, most, judged = (sys.argv[1:] + ["steps"])[:4]
read = lambda path: [json.loads(line)["trainLoss"] for line in open(path) if "trainLoss" in line]
x, y = read(a + "/metrics.jsonl"), read(b + "/metrics.jsonl")
third = max(1, len(x) // 3)
means = [sum(losses[-third:]) / third for losses in (x, y)]
apart = [abs(p / q - 1) for p, q in zip(x, y)]
off = {"steps": max(apart) if all(a == a for a in apart) else math.nan, "means": abs(means[0] / means[1] - 1)}
print(f"{a.split('/')[-1]} and {b.split('/')[-1]}: {len(x)} and {len(y)} losses, {x[0]:.4f} to {x[-1]:.4f}, "
      f"at most {off['steps']:.2e} apart; in the mean of the last third {means[0]:.4f} and {means[1]:.4f}, "
      f"{off['means']:.2e} apart; allowed {most} of the {judged}")
sys.exit(0 if len(x) == len(y) > 0 and off[judged] <= float(most) else 1)
END
}
export -f compare

# 200 steps. Roundings of f32 grow as training goes its own way; those of bf16 are 2^16 times larger.
losses() {
    llm train $SMALL --steps 200 --device cpu --out "$work/cpu" > /dev/null &&
        llm train $SMALL --steps 200 --device cuda --precision fp32 --tf32 0 --out "$work/f32" > /dev/null &&
        llm train $SMALL --steps 200 --device cuda --precision fp32 --tf32 1 --out "$work/tf32" > /dev/null &&
        llm train $SMALL --steps 200 --device cuda --precision bf16 --out "$work/bf16" > /dev/null &&
        compare "$work/f32" "$work/cpu" 1e-3 && compare "$work/tf32" "$work/cpu" 1e-2 &&
        compare "$work/bf16" "$work/cpu" 2e-2
}

# The blocks' products in eight bits beside those in bf16: 500 steps, and GPT-2 124M; for scale, how far
# TF32 is from bf16 there.
eight() {
    llm train $SMALL --steps 1 --device cuda --precision fp8 > "$work/eight.log" 2>&1 ||
        { tail -n 1 "$work/eight.log" && grep -q 'cannot multiply in eight bits' "$work/eight.log" && return 77; } ||
        return 1
    for precision in bf16 fp8; do
        llm train $SMALL --steps 500 --device cuda --precision $precision --out "$work/500-$precision" > /dev/null &&
            llm train $D12 --steps 300 --device cuda --precision $precision --out "$work/d12-$precision" > /dev/null ||
            return 1
    done
    # While losses fall fast, TF32 is as far from bf16: they are compared when most is learnt.
    llm train $D12 --steps 300 --device cuda --precision fp32 --tf32 1 --out "$work/d12-tf32" > /dev/null &&
        compare "$work/d12-tf32" "$work/d12-bf16" inf &&
        compare "$work/500-fp8" "$work/500-bf16" 1e-2 &&
        compare "$work/d12-fp8" "$work/d12-bf16" 1e-2 means
}

same() { cmp "$work/$1/model_$3" "$work/$2/model_$3" && cmp "$work/$1/state_${3%.bin}_00000.bin" "$work/$2/state_${3%.bin}_00000.bin"; }
export -f same
resume() {
    llm train $SMALL --steps 40 --device cuda --checkpoint-every 20 --out "$work/whole" > /dev/null &&
        llm train $SMALL --steps 20 --device cuda --out "$work/parts" > /dev/null &&
        llm train --resume --steps 40 --out "$work/parts" &&
        same whole parts 00000040.bin
}

# GPT-2 124M in bf16: every loss and norm, with all their digits.
twice() {
    for run in once again; do
        llm train $D12 --steps 20 --device cuda --out "$work/$run" || return 1
    done
    numbers() { python3 -c 'import json, sys
for line in open(sys.argv[1]):
    step = json.loads(line)
    print(step["step"], step["trainLoss"], step["gradNorm"])' "$work/$1/metrics.jsonl"; }
    diff <(numbers once) <(numbers again) && same once again 00000020.bin
}

# More than the GPU's memory is one line.
refusal() {
    llm train --init gpt2:d48 --batch 256 --context 1024 --classifier-rows 0 --steps 1 --device cuda \
        2> "$work/refusal"
    [ $? -eq 2 ] && cat "$work/refusal" && grep -q '^llm: this run needs .* GB of memory, and the GPU' "$work/refusal"
}

# The GPU's state, in the logs.
monitor() {
    llm train $SMALL --steps 3 --device cuda -lg 1 --out "$work/monitor" > /dev/null &&
        grep '"device"' "$work/monitor/metrics.jsonl" && grep -q '"powerW"' "$work/monitor/metrics.jsonl"
}

sanitize() {
    command -v compute-sanitizer > /dev/null || { echo "there is no compute-sanitizer" && return 77; }
    local tiny="--layers 1 --heads 1 --channels 64 --vocab 50257 --batch 1 --context 64 $QUIET --steps 3"
    compute-sanitizer --tool "$1" --error-exitcode 99 --print-limit 20 \
        ./llm train $tiny --device cuda --precision "$2"
}
export -f losses eight resume twice refusal monitor sanitize

part ops 150 bash -c 'bun_test test/cuda/ops.test.ts'
part model 60 bash -c 'bun_test test/model/fixture.test.ts'
part train 120 bash -c 'bun_test test/cuda/device.test.ts test/cuda/train.test.ts'
part losses 90 bash -c losses
part eight 110 bash -c eight
part resume 45 bash -c resume
part twice 60 bash -c twice
part refusal 30 bash -c refusal
part monitor 30 bash -c monitor
part memcheck 60 bash -c 'sanitize memcheck bf16'
part racecheck 60 bash -c 'sanitize racecheck bf16'
[ ! -e bench/gpu.sh ] || part bench 600 sh bench/gpu.sh $((seconds - SECONDS - 10)) "$out/gpu.md"
say "done in $SECONDS s"
exit $failed
