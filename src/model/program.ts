// The phases that a run calls, as lists of kernel calls over one set of tensors.

import { fuseClassifier, fusePairs } from "../program/fuse.ts"
import { Graph } from "../program/graph.ts"
import type { ProgramSource } from "../program/link.ts"
import * as ops from "../program/ops.ts"
import { type Call, elements, type Phase, type Runtime, type Tensor } from "../program/tensor.ts"
import { type Config, parameterCount } from "./config.ts"
import { forward, type Parameters, parameterTable } from "./gpt2.ts"

/** AdamW's numbers that do not change from step to step. */
export interface AdamW {
  beta1: number
  beta2: number
  eps: number
  weightDecay: number
}

export interface TrainingOptions {
  B: number
  T: number
  /** Micro-steps whose gradients are added up to one optimizer step. */
  accumulation: number
  adamw: AdamW
  /** Off: the list as the model wrote it, for tests and for reading. */
  fuse?: boolean
}

type Pinned<D extends "f32" | "f64" | "i32"> = Tensor & { dtype: D }

/** Tensors by which a sampler talks to the `decode` phase. */
export interface DecodeTensors {
  token: Pinned<"i32">
  position: Pinned<"i32">
  logits: Pinned<"f32">
}

export interface TrainingProgram extends ProgramSource, DecodeTensors {
  parameters: Parameters
  gradients: Parameters
  m: Parameters
  v: Parameters
  tokens: Pinned<"i32">
  targets: Pinned<"i32">
  loss: Pinned<"f32">
  /** Sums of squares, one a parameter: their sum's root is the gradient's norm. */
  squares: Pinned<"f64">
}

const pinned = <D extends "f32" | "f64" | "i32">(name: string, shape: number[], dtype: D) =>
  ({ name, shape, dtype, role: "pinned" }) as Pinned<D>

function parameterTensors(config: Config, prefix: string, role: Tensor["role"]): Parameters {
  const table = parameterTable(config)
  return Object.fromEntries(
    table.map(({ name, shape }) => [
      name,
      { name: `${prefix}${name}`, shape, role, dtype: "f32" as const },
    ]),
  )
}

/** Phases forward(), backward(accumulate), gradient_norm(), update(lr, grad_scale, step),
 * evaluate() and decode(). */
export function trainingProgram(config: Config, options: TrainingOptions): TrainingProgram {
  const { B, T, accumulation, fuse = true } = options
  const parameters = parameterTensors(config, "", "parameter")
  const gradients = parameterTensors(config, "d", "gradient")
  const m = parameterTensors(config, "m_", "moment")
  const v = parameterTensors(config, "v_", "moment")
  const tokens = pinned("tokens", [B, T], "i32")
  const targets = pinned("targets", [B, T], "i32")
  const loss = pinned("loss", [1], "f32")
  const names = Object.keys(parameters)
  const squares = pinned("squares", [names.length], "f64")
  const { phase: decode, tensors } = decodePhase(config, parameters, fuse)

  const pass = () => {
    const g = new Graph()
    const { losses } = lossOf(g, config, parameters, tokens, targets, 1 / (B * T * accumulation))
    const mean: Call = { kernel: "mean_forward", args: [loss, losses, B * T] }
    return { g, calls: [...g.forward(), mean] }
  }
  const { g, calls } = pass()
  let training: [Call[], Call[]] = [
    calls,
    g.backward(new Map(names.map((name) => [parameters[name]!, gradients[name]!]))),
  ]
  let evaluation = pass().calls
  if (fuse) {
    const all = training.flat()
    training = fuseClassifier(fusePairs(training[0], all), fusePairs(training[1], all))
    evaluation = fusePairs(evaluation)
  }
  const phases: Phase[] = [
    { name: "forward", calls: training[0] },
    { name: "backward", calls: training[1] },
    { name: "gradient_norm", calls: names.map((n, i) => squaredNorm(squares, i, gradients[n]!)) },
    { name: "update", calls: updateCalls(config, options.adamw, parameters, gradients, m, v) },
    { name: "evaluate", calls: evaluation },
    decode,
  ]
  const stacks = [parameters, gradients, m, v].flatMap((tensors) => Object.values(tensors))
  const always = [tokens, targets, loss, squares, ...Object.values(tensors), ...stacks]
  const title = `${describeConfig(config)}; B ${B}, T ${T}`
  return {
    title,
    phases,
    always,
    parameters,
    gradients,
    m,
    v,
    tokens,
    targets,
    loss,
    squares,
    ...tensors,
  }
}

export interface DecodeProgram extends ProgramSource, DecodeTensors {
  parameters: Parameters
}

/** One phase, decode(): one token in, the next one's logits out. */
export function decodeProgram(config: Config): DecodeProgram {
  const parameters = parameterTensors(config, "", "parameter")
  const { phase, tensors } = decodePhase(config, parameters, true)
  const always = [...Object.values(tensors), ...Object.values(parameters)]
  const title = `${describeConfig(config)}; one token at a time`
  return { title, phases: [phase], always, parameters, ...tensors }
}

function lossOf(
  g: Graph,
  config: Config,
  parameters: Parameters,
  tokens: Tensor,
  targets: Tensor,
  scale: number,
) {
  const attend = (_l: number, name: string, qkv: Tensor) => ops.attention(g, name, [qkv], config.NH)
  const logits = forward(g, parameters, config, tokens, null, attend)
  return { losses: g.run(ops.classifier(g, "losses", [logits, targets], config.V, scale)) }
}

function decodePhase(config: Config, parameters: Parameters, fuse: boolean) {
  const { C, L, Vp, NH, maxT } = config
  const g = new Graph()
  const token = pinned("token", [1, 1], "i32")
  const position = pinned("position", [1], "i32")
  const caches = Array.from({ length: L }, (_, l) => ({
    k: g.tensor(`h${l}.kcache`, [maxT, C], "cache"),
    v: g.tensor(`h${l}.vcache`, [maxT, C], "cache"),
  }))
  const attend = (l: number, name: string, qkv: Tensor) =>
    ops.attentionDecode(g, name, [caches[l]!.k, caches[l]!.v, qkv, position], NH)
  const made = forward(g, parameters, config, token, position, attend)
  const logits = pinned("next_logits", [1, 1, Vp], "f32")
  const calls = g.forward().map((call) => ({
    ...call,
    args: call.args.map((arg) => (arg === made ? logits : arg)), // read after the phase
  }))
  const phase: Phase = { name: "decode", calls: fuse ? fusePairs(calls) : calls }
  return { phase, tensors: { token, position, logits } }
}

function squaredNorm(squares: Tensor, i: number, gradient: Tensor): Call {
  const own = { ...squares, name: `squares[${i}]`, shape: [1], base: squares, offset: i }
  return { kernel: "squared_norm", args: [own, gradient, elements(gradient)] }
}

function updateCalls(
  config: Config,
  { beta1, beta2, eps, weightDecay }: AdamW,
  parameters: Parameters,
  gradients: Parameters,
  m: Parameters,
  v: Parameters,
): Call[] {
  const runtime = (name: string, type: Runtime["type"]): Runtime => ({ runtime: name, type })
  const [lr, scale, step] = [
    runtime("lr", "float"),
    runtime("grad_scale", "float"),
    runtime("step", "int"),
  ]
  return parameterTable(config).map(({ name, decay }) => {
    const tensors = [parameters[name]!, m[name]!, v[name]!, gradients[name]!]
    const decayed = decay ? weightDecay : 0
    const numbers = [lr, beta1, beta2, eps, decayed, scale, step]
    return { kernel: "adamw_update", args: [...tensors, elements(tensors[0]!), ...numbers] }
  })
}

export function describeConfig(config: Config): string {
  const { L, NH, C, V, Vp, maxT } = config
  const millions = (parameterCount(config) / 1e6).toFixed(1)
  return `GPT-2, ${millions} M parameters: L ${L}, NH ${NH}, C ${C}, V ${V} (padded ${Vp}), maxT ${maxT}`
}
