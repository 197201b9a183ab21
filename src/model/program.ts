// The phases that a run calls, as lists of kernel calls over one set of tensors.

import { assert } from "../errors.ts"
import type { Platform, Precision } from "../native/contract.ts"
import { chunkEvaluation, chunkTraining } from "../program/chunk.ts"
import { inFp8, type Slots } from "../program/fp8.ts"
import {
  fuseBiases,
  fuseClassifier,
  fusePairs,
  type GeluFusion,
  substitute,
} from "../program/fuse.ts"
import { Graph } from "../program/graph.ts"
import type { ProgramSource } from "../program/link.ts"
import * as ops from "../program/ops.ts"
import { type Recompute, recompute } from "../program/recompute.ts"
import { type Call, elements, type Phase, type Tensor } from "../program/tensor.ts"
import { type Config, parameterCount } from "./config.ts"
import { type F32Parameters, forward, type Parameters, parameterTable } from "./gpt2.ts"

/** AdamW's numbers that do not change from step to step. */
export interface AdamW {
  beta1: number
  beta2: number
  eps: number
  weightDecay: number
}

export interface Bf16Update {
  /** Whether the parameters are kept in f32 as well, so that small steps are not lost. */
  masters: boolean
  /** Rounded at random, so that without masters small steps still count on average. */
  stochastic: boolean
  /** Of that rounding. */
  seed: number
}

export interface TrainingOptions {
  B: number
  T: number
  /** Micro-steps whose gradients are added up to one optimizer step. */
  accumulation: number
  adamw: AdamW
  /** What weights and activations are stored in; gradients of weights and moments are f32. */
  precision?: Precision
  /** Whose kernels it is for; "cpu" when left out. */
  platform?: Platform
  /** Of bf16: whether blocks multiply in eight bits. */
  fp8?: boolean
  /** Of bf16: how its parameters are updated. */
  bf16?: Bf16Update
  /** Rows of logits that exist at once, a multiple of CHUNK_ALIGN; all of them when left out. */
  classifierRows?: number
  /** What the backward pass makes again, so that it need not be kept; nothing when left out. */
  recompute?: Recompute
  geluFusion?: GeluFusion
  /** Off: the list as the model wrote it, for tests and for reading. */
  fuse?: boolean
}

type Pinned<D extends "f32" | "f64" | "i32"> = Tensor & { dtype: D }

/** Tensors by which a sampler talks to the phases `prefill`, which reads T tokens of sequence 0 into
 * the caches, and `decode`, which reads one token of each of B sequences and tells what comes next. */
export interface DecodeTensors {
  /** The next tokens (B,1), their positions (B), and the logits (B,1,Vp) of those that follow. */
  token: Pinned<"i32">
  position: Pinned<"i32">
  logits: Pinned<"f32">
  /** Tokens (1,T), and the position (1) of the first. */
  prompt: Pinned<"i32">
  promptPosition: Pinned<"i32">
  /** Keys and values of all layers, (B,maxT,C) each. What lies from a position on is overwritten
   * before it is read. */
  caches: Tensor[]
}

/** Tensors by which a caller talks to the `evaluate` phase. */
export interface EvaluateTensors {
  tokens: Pinned<"i32">
  targets: Pinned<"i32">
  /** Of each platform (B,T), and their mean. */
  losses: Pinned<"f32">
  loss: Pinned<"f32">
}

export interface TrainingProgram extends ProgramSource, DecodeTensors, EvaluateTensors {
  parameters: Parameters
  /** The parameters in f32, where those are bf16 and masters are kept. */
  masters?: F32Parameters
  gradients: F32Parameters
  m: F32Parameters
  v: F32Parameters
  /** What the next update learns of the trainer, (3): llm.h's update_begin. */
  controls: Pinned<"f64">
  /** Sums of squares, one a parameter: their sum's root is the gradient's norm. */
  squares: Pinned<"f64">
  norm: Pinned<"f64">
  /** Of products in eight bits: what is known of each tensor's numbers from step to step. */
  slots?: Slots[]
}

const pinned = <D extends "f32" | "f64" | "i32">(name: string, shape: number[], dtype: D) =>
  ({ name, shape, dtype, role: "pinned" }) as Pinned<D>

function parameterTensors<D extends Tensor["dtype"]>(
  config: Config,
  prefix: string,
  role: Tensor["role"],
  dtype: D,
): Record<string, Tensor & { dtype: D }> {
  const table = parameterTable(config)
  return Object.fromEntries(
    table.map(({ name, shape }) => [name, { name: `${prefix}${name}`, shape, role, dtype }]),
  )
}

const weightTensors = (config: Config, precision: Precision): Parameters =>
  parameterTensors(config, "", "parameter", precision === "bf16" ? "bf16" : "f32")

/** Phases forward(), backward(accumulate), gradient_norm(), update(), evaluate(), prefill() and
 * decode(). The norm decides of the update where it is made, so that all of a step can be queued. With
 * products in eight bits quantize_weights(calibrate) begins a step, next_scales() ends it, and between
 * them are forward(calibrate) and backward(accumulate, calibrate). */
export function trainingProgram(config: Config, options: TrainingOptions): TrainingProgram {
  const { B, T, accumulation, precision = "fp32", classifierRows, fuse = true, platform } = options
  const mode = options.recompute ?? "0"
  const { fp8 = false, geluFusion } = options
  assert(!fp8 || (fuse && precision === "bf16"), "eight bits in a program that has none")
  const pairs = (calls: Call[], all?: Call[], gelus = geluFusion) =>
    fuse ? fusePairs(calls, all, gelus) : calls
  const parameters = weightTensors(config, precision)
  const hasMasters = precision === "bf16" && options.bf16?.masters !== false
  const masters = hasMasters ? parameterTensors(config, "master_", "master", "f32") : undefined
  const gradients = parameterTensors(config, "d", "gradient", "f32")
  const m = parameterTensors(config, "m_", "moment", "f32")
  const v = parameterTensors(config, "v_", "moment", "f32")
  const { phase: evaluate, tensors: batch } = evaluatePhase(config, parameters, options, pairs)
  const names = Object.keys(parameters)
  const controls = pinned("controls", [3], "f64")
  const squares = pinned("squares", [names.length], "f64")
  const norm = pinned("norm", [1], "f64")
  const update = pinned("update", [5], "f64")
  const decoding = decodePhases(config, parameters, { precision, platform }, pairs)

  const g = new Graph(precision, platform)
  const { calls } = meanLoss(g, config, parameters, batch, 1 / (B * T * accumulation))
  const reversed = g.backward(new Map(names.map((name) => [parameters[name]!, gradients[name]!])))
  let training: [Call[], Call[]] = [calls, recompute(calls, reversed, g.inner, mode)]
  if (fuse) {
    const all = training.flat()
    const gelus = fp8 ? 0 : geluFusion // in eight bits they join what comes before a product
    const backward = pairs(training[1], all, gelus)
    const summed = platform === "cuda" ? fuseBiases(backward) : backward
    training = fuseClassifier(pairs(training[0], all, gelus), summed)
  }
  const eight = fp8 ? inFp8(...training) : undefined
  if (eight) training = [eight.forward, eight.backward]
  if (classifierRows !== undefined) training = chunkTraining(...training, classifierRows)
  const phases: Phase[] = [
    ...(eight ? [{ name: "quantize_weights", calls: eight.begin }] : []),
    { name: "forward", calls: training[0] },
    { name: "backward", calls: training[1] },
    {
      name: "gradient_norm",
      calls: [
        ...names.map((n, i) => squaredNorm(squares, i, gradients[n]!)),
        updateBegin(options.adamw, { update, norm, controls, squares, loss: batch.loss }),
      ],
    },
    {
      name: "update",
      calls: updateCalls(config, options, { parameters, masters, gradients, m, v }, update),
    },
    ...(eight ? [{ name: "next_scales", calls: eight.end }] : []),
    evaluate,
    ...decoding.phases,
  ]
  const stacks = [parameters, masters ?? {}, gradients, m, v].flatMap((s) => Object.values(s))
  const pins = [
    ...[...Object.values(batch), controls, squares, norm, update, ...decoding.pins],
    ...(eight ? [...eight.slots, ...eight.weights] : []),
  ]
  const repeated = mode === "0" ? "" : `; recompute ${mode}`
  const title = `${describeConfig(config)}; B ${B}, T ${T}; ${fp8 ? "fp8" : precision}${repeated}`
  return {
    title,
    precision,
    phases,
    always: [...pins, ...stacks],
    parameters,
    masters,
    gradients,
    m,
    v,
    controls,
    squares,
    norm,
    ...(eight && { slots: eight.slots }),
    ...batch,
    ...decoding.tensors,
  }
}

export interface DecodeProgram extends ProgramSource, DecodeTensors {
  parameters: Parameters
}

/** Phases prefill() and decode(), for B sequences at a time. */
export function decodeProgram(
  config: Config,
  precision: Precision = "fp32",
  B = 1,
  platform?: Platform,
): DecodeProgram {
  const parameters = weightTensors(config, precision)
  const kind = { precision, platform }
  const { phases, pins, tensors } = decodePhases(config, parameters, kind, fusePairs, B)
  const always = [...pins, ...Object.values(parameters)]
  const title = `${describeConfig(config)}; one token at a time, B ${B}; ${precision}`
  return { title, precision, phases, always, parameters, ...tensors }
}

export type EvaluationOptions = Pick<
  TrainingOptions,
  "B" | "T" | "precision" | "platform" | "classifierRows"
>

export interface EvaluationProgram extends ProgramSource, EvaluateTensors {
  parameters: Parameters
}

/** One phase, evaluate(): the losses of a batch. */
export function evaluationProgram(config: Config, options: EvaluationOptions): EvaluationProgram {
  const { B, T, precision = "fp32" } = options
  const parameters = weightTensors(config, precision)
  const { phase, tensors } = evaluatePhase(config, parameters, options, fusePairs)
  const always = [...Object.values(tensors), ...Object.values(parameters)]
  const title = `${describeConfig(config)}; evaluates B ${B}, T ${T}; ${precision}`
  return { title, precision, phases: [phase], always, parameters, ...tensors }
}

/** Calls for the losses of a batch and their mean. `scale` times their sum is what the backward pass
 * differentiates. */
function meanLoss(
  g: Graph,
  config: Config,
  parameters: Parameters,
  { tokens, targets, loss }: EvaluateTensors,
  scale: number,
) {
  const attend = (_l: number, name: string, qkv: Tensor) => ops.attention(g, name, [qkv], config.NH)
  const logits = forward(g, parameters, config, tokens, null, attend)
  const losses = g.run(ops.classifier(g, "losses", [logits, targets], config.V, scale))
  const mean: Call = { kernel: "mean_forward", args: [loss, losses, elements(losses)] }
  return { losses, calls: [...g.forward(), mean] }
}

function evaluatePhase(
  config: Config,
  parameters: Parameters,
  { B, T, precision, platform, classifierRows }: EvaluationOptions,
  pairs: (calls: Call[]) => Call[],
) {
  const tensors: EvaluateTensors = {
    tokens: pinned("tokens", [B, T], "i32"),
    targets: pinned("targets", [B, T], "i32"),
    losses: pinned("target_losses", [B, T], "f32"),
    loss: pinned("loss", [1], "f32"),
  }
  const { losses, calls } = meanLoss(new Graph(precision, platform), config, parameters, tensors, 1)
  const kept = calls.map((call) => substitute(call, losses, tensors.losses))
  const fused = pairs(kept)
  const chunked = classifierRows ? chunkEvaluation(fused, classifierRows) : fused
  return { phase: { name: "evaluate", calls: chunked } satisfies Phase, tensors }
}

const PREFILL = 64 // tokens: weights are read once for all of them, and short prompts waste little

function decodePhases(
  config: Config,
  parameters: Parameters,
  { precision, platform }: Pick<TrainingOptions, "precision" | "platform">,
  pairs: (calls: Call[]) => Call[],
  B = 1,
) {
  const { C, L, Vp, NH, maxT } = config
  const g = new Graph(precision, platform)
  const token = pinned("token", [B, 1], "i32")
  const position = pinned("position", [B], "i32")
  const prompt = pinned("prompt", [1, Math.min(PREFILL, maxT)], "i32")
  const promptPosition = pinned("prompt_position", [1], "i32")
  const caches = Array.from({ length: L }, (_, l) => ({
    k: g.cache(`h${l}.kcache`, [B, maxT, C]),
    v: g.cache(`h${l}.vcache`, [B, maxT, C]),
  }))
  const attend =
    (g: Graph, position: Tensor) =>
    (l: number, name: string, qkv: Tensor): ops.Op => {
      const { k, v } = caches[l]!
      return ops.attentionDecode(g, name, [k, v, qkv, position], NH)
    }
  const made = forward(g, parameters, config, token, position, attend(g, position))
  const logits = pinned("next_logits", [B, 1, Vp], "f32")
  const result = precision === "bf16" ? made : logits // in f32 it is what the phase makes
  const calls = g.forward().map((call) => substitute(call, made, result))
  if (precision === "bf16") calls.push({ kernel: "bf16_widen", args: [logits, made, B * Vp] })

  const p = new Graph(precision, platform)
  forward(p, parameters, config, prompt, promptPosition, attend(p, promptPosition))
  const all = p.forward() // of which the caches need nothing after the last layer's keys and values
  const filling = all.slice(0, 1 + all.findLastIndex(({ kernel }) => kernel === "attention_decode"))
  const phases: Phase[] = [
    { name: "prefill", calls: pairs(filling) },
    { name: "decode", calls: pairs(calls) },
  ]
  const pins = { token, position, logits, prompt, promptPosition }
  const tensors = { ...pins, caches: caches.flatMap(({ k, v }) => [k, v]) }
  return { phases, pins: Object.values(pins), tensors }
}

function squaredNorm(squares: Tensor, i: number, gradient: Tensor): Call {
  const own = { ...squares, name: `squares[${i}]`, shape: [1], base: squares, offset: i }
  return { kernel: "squared_norm", args: [own, gradient, elements(gradient)] }
}

function updateBegin(
  { beta1, beta2 }: AdamW,
  { update, norm, controls, squares, loss }: Record<string, Tensor>,
): Call {
  const args = [update!, norm!, controls!, squares!, loss!, elements(squares!), beta1, beta2]
  return { kernel: "update_begin", args }
}

type UpdateTensors = Pick<TrainingProgram, "parameters" | "masters" | "gradients" | "m" | "v">

function updateCalls(
  config: Config,
  { adamw, precision, bf16 }: TrainingOptions,
  { parameters, masters, gradients, m, v }: UpdateTensors,
  update: Tensor,
): Call[] {
  const { beta1, beta2, eps, weightDecay } = adamw
  return parameterTable(config).map(({ name, decay }, stream) => {
    const [parameter, master] = [parameters[name]!, masters?.[name] ?? null]
    const state = [m[name]!, v[name]!, gradients[name]!, update]
    const decayed = decay ? weightDecay : 0
    const numbers = [elements(parameter), beta1, beta2, eps, decayed]
    if (precision !== "bf16") {
      return { kernel: "adamw_update", args: [parameter, ...state, ...numbers] }
    }
    const rounding = [bf16?.stochastic ? 1 : 0, bf16?.seed ?? 0, stream]
    return { kernel: "adamw_update", args: [parameter, master, ...state, ...numbers, ...rounding] }
  })
}

export function describeConfig(config: Config): string {
  const { L, NH, C, V, Vp, maxT } = config
  const millions = (parameterCount(config) / 1e6).toFixed(1)
  return `GPT-2, ${millions} M parameters: L ${L}, NH ${NH}, C ${C}, V ${V} (padded ${Vp}), maxT ${maxT}`
}
