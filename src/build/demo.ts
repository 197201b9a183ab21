// What `npm start` trains, as options of `llm train`.

const ALIKE = "--final-lr-frac 0.02 --beta2 0.98 --weight-decay 0.1 --shuffle"
const SHAPE = "--batch 2 --context 128 --val-every 100"
const FULL = `${SHAPE} --steps 1000 --lr 4e-3 --warmup 100 --sample-every 1000 --sample-tokens 300`
// The reference kernels do some 0.5 GFLOP/s: enough to see the loss fall, not to write.
const TINY_SHAPE = "--layers 1 --channels 16 --heads 1 --batch 1 --context 32 --val-every 0"
const TINY = `${TINY_SHAPE} --steps 200 --lr 1e-2 --warmup 20 --sample-every 200 --sample-tokens 40`

/** With a CPU library, and without. */
export function demo(isFast: boolean): string[] {
  return `${isFast ? FULL : TINY} ${ALIKE}`.split(" ")
}
