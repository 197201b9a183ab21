// Choosing the next token from logits: the repetition penalty (Keskar et al. 2019), temperature, top-k,
// top-p (Holtzman et al. 2020) and min-p (Nguyen et al. 2024), in this order.

import { assert, UserError } from "../errors.ts"

export interface Filters {
  /** Divides the logits; 0 takes the likeliest token. */
  temperature: number
  /** Keeps the k likeliest tokens; 0 keeps all. */
  topK: number
  /** Keeps the likeliest tokens whose probabilities first reach p; 1 keeps all. */
  topP: number
  /** Keeps tokens at least as likely as the likeliest, times this; 0 keeps all. */
  minP: number
  /** Divides positive logits of tokens that the text has, and multiplies negative ones; 1 is none. */
  repetitionPenalty: number
}

export const NO_FILTERS: Filters = {
  temperature: 1,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
}

/** Picks a token of the first V logits by one uniform number in [0,1), knowing the tokens that the text
 * has. Logits may be −∞, but not all. */
export function chooseToken(
  given: Float32Array,
  V: number,
  { temperature, topK, topP, minP, repetitionPenalty }: Filters,
  uniform: number,
  seen: Iterable<number> = [],
): number {
  const logits = repetitionPenalty === 1 ? given : penalised(given, repetitionPenalty, seen)
  assert(V >= 1 && V <= logits.length && uniform >= 0 && uniform < 1, "bad draw")
  const best = argmax(logits, V)
  const top = logits[best]!
  if (!Number.isFinite(top)) {
    throw new UserError(
      "the next token's scores are not finite: the model's training diverged, or its file is damaged (take another model)",
    )
  }
  if (temperature === 0) return best

  const weights = new Float64Array(V)
  let total = 0
  for (let i = 0; i < V; i++) total += weights[i] = Math.exp((logits[i]! - top) / temperature)
  if (topK > 0 || topP < 1) total = filter(weights, total, topK, topP)
  if (minP > 0) total = dropBelow(weights, minP) // the likeliest has the weight 1

  let left = uniform * total
  let last = best
  for (let i = 0; i < V; i++) {
    if (weights[i] === 0) continue
    last = i
    left -= weights[i]!
    if (left < 0) return i
  }
  return last // rounding may leave a crumb past the end
}

/** The log of a token's probability among the first V. */
export function logProbability(logits: Float32Array, V: number, token: number): number {
  const top = logits[argmax(logits, V)]!
  let total = 0
  for (let i = 0; i < V; i++) total += Math.exp(logits[i]! - top)
  return logits[token]! - top - Math.log(total)
}

function penalised(logits: Float32Array, penalty: number, seen: Iterable<number>): Float32Array {
  const changed = logits.slice()
  for (const token of seen) {
    const logit = logits[token]!
    changed[token] = logit > 0 ? logit / penalty : logit * penalty
  }
  return changed
}

/** The first of the largest; a NaN counts as larger than all. */
function argmax(logits: Float32Array, V: number): number {
  let best = 0
  for (let i = 0; i < V; i++) {
    if (logits[i]! <= logits[best]!) continue
    best = i
    if (Number.isNaN(logits[i])) break
  }
  return best
}

/** Sets the weights of all other tokens to 0 and returns the sum of those that stay. Equal weights
 * stay in the order of their tokens. */
function filter(weights: Float64Array, total: number, topK: number, topP: number): number {
  // Tokens below this make up less than 1 − p together, so that the sort can leave them out.
  const floor = topK > 0 ? kthBucketFloor(weights, topK) : ((1 - topP) * total) / weights.length
  const order: number[] = []
  for (let i = 0; i < weights.length; i++) if (weights[i]! > floor) order.push(i)
  order.sort((a, b) => weights[b]! - weights[a]! || a - b)
  if (topK > 0 && order.length > topK) order.length = topK

  let mass = 0
  for (const i of order) mass += weights[i]!
  const wanted = topP * (topK > 0 ? mass : total)
  let kept = 0
  let sum = 0
  while (kept < order.length && (kept === 0 || sum < wanted)) sum += weights[order[kept++]!]!

  const stay = order.slice(0, kept).map((i) => [i, weights[i]!] as const)
  weights.fill(0)
  for (const [i, weight] of stay) weights[i] = weight
  return sum
}

/** Sets smaller weights to 0 and returns the sum of the others. */
function dropBelow(weights: Float64Array, least: number): number {
  let total = 0
  for (let i = 0; i < weights.length; i++) {
    if (weights[i]! < least) weights[i] = 0
    total += weights[i]!
  }
  return total
}

const BUCKETS_A_NAT = 16
const BUCKETS = 1024

/** A weight below the k-th largest, and not far below it: sorting the whole vocabulary would take
 * longer than a small model's forward pass. Weights are at most 1. */
function kthBucketFloor(weights: Float64Array, k: number): number {
  const counts = new Uint32Array(BUCKETS)
  for (const weight of weights) {
    const bucket = -Math.log(weight) * BUCKETS_A_NAT
    if (bucket < BUCKETS) counts[bucket | 0]!++
  }
  let count = 0
  for (let bucket = 0; bucket < BUCKETS; bucket++) {
    count += counts[bucket]!
    // One bucket further, as the logarithm's rounding may have put a weight next door.
    if (count >= k) return Math.exp(-(bucket + 2) / BUCKETS_A_NAT)
  }
  return 0
}
