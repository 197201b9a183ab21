import { describe, expect, test } from "bun:test"
import { preset } from "../../src/model/config.ts"
import { trainingProgram } from "../../src/model/program.ts"
import { fuseBiases, fuseClassifier, fusePairs } from "../../src/program/fuse.ts"
import { ACCUMULATE, Graph } from "../../src/program/graph.ts"
import * as ops from "../../src/program/ops.ts"
import { type Call, isTensor, layer, type Tensor } from "../../src/program/tensor.ts"
import { ADAMW } from "../model/run.ts"

const N = 4
const C = 8

/** A graph with one input and a product's weight, and the weight's gradient. */
function start() {
  const g = new Graph()
  const x = g.activation("x", [N, C])
  const weight = g.tensor("w", [C, C], "parameter")
  const dweight = g.tensor("dw", [C, C], "gradient")
  const targets = g.tensor("targets", [N], "pinned", "i32")
  const gradients = new Map([[weight, dweight]])
  const product = (name: string, inp: Tensor) => g.run(ops.matmul(g, name, [inp, weight, null]))
  const loss = (logits: Tensor) => g.run(ops.classifier(g, "losses", [logits, targets], C, 1))
  return { g, x, weight, gradients, product, loss }
}

const kernels = (calls: Call[]) => calls.map(({ kernel }) => kernel)
const tensorsOf = (call: Call) => call.args.filter(isTensor).map(({ name }) => name)
const last = (call: Call) => call.args.at(-1)

describe("the reversed list", () => {
  test("runs every op's gradient after those of its users", () => {
    const { g, x, gradients, product, loss } = start()
    loss(g.run(ops.gelu(g, "gelu", [product("h", x)])))
    expect(kernels(g.backward(gradients))).toEqual([
      "classifier_backward",
      "gelu_backward",
      "matmul_backward_weight",
      "matmul_backward_input",
    ])
  })

  test("a tied weight is written by its last use and added to by the earlier ones", () => {
    const { g, x, gradients, product, loss } = start()
    loss(product("second", product("first", x)))
    const toWeight = g.backward(gradients).filter((c) => c.kernel === "matmul_backward_weight")
    expect(toWeight.map(last)).toEqual([ACCUMULATE, 1])
  })

  test("the layers of a stacked weight are each written, not added up", () => {
    const { g, x, loss } = start()
    const stack = g.tensor("stack", [2, C, C], "parameter")
    const dstack = g.tensor("dstack", [2, C, C], "gradient")
    const first = g.run(ops.matmul(g, "first", [x, layer(stack, 0), null]))
    loss(g.run(ops.matmul(g, "second", [first, layer(stack, 1), null])))
    const toWeight = g
      .backward(new Map([[stack, dstack]]))
      .filter((c) => c.kernel === "matmul_backward_weight")
    expect(toWeight.map((c) => [tensorsOf(c)[0], last(c)])).toEqual([
      ["dstack[1]", ACCUMULATE],
      ["dstack[0]", ACCUMULATE],
    ])
  })

  test("a residual's gradient is the sum's own tensor, which the branch then adds to", () => {
    const { g, x, gradients, product, loss } = start()
    const [lnw, lnb] = ["lnw", "lnb"].map((name) => g.tensor(name, [C], "parameter"))
    for (const p of [lnw!, lnb!]) gradients.set(p, g.tensor(`d${p.name}`, [C], "gradient"))
    const h = product("h", x)
    const ln = g.run(ops.layernorm(g, "ln", [h, lnw!, lnb!]))
    loss(g.run(ops.add(g, "sum", [h, product("branch", ln)])))
    const backward = g.backward(gradients)
    const norm = backward.find((c) => c.kernel === "layernorm_backward")!
    expect(tensorsOf(norm).slice(0, 4)).toEqual(["dsum", "dlnw", "dlnb", "dln"])
    expect(norm.args.at(-2)).toBe(1) // adds to dsum, which is dh
    expect(tensorsOf(backward.at(-1)!).slice(0, 2)).toEqual(["dx", "dsum"])
  })

  test("refuses to write a product's gradient over what it reads", () => {
    const { g, x, gradients, product, loss } = start()
    const h = product("h", x)
    loss(g.run(ops.add(g, "sum", [h, product("branch", h)])))
    expect(() => g.backward(gradients)).toThrow("adding to dh would change dbranch")
  })

  test("refuses to add to a gradient that another tensor still needs", () => {
    const { g, x, gradients, product, loss } = start()
    const [a, b] = [product("a", x), product("b", x)]
    // a's gradient is the sum's and b's too; a's later use would add to both.
    const later = product("later", a)
    loss(g.run(ops.add(g, "outer", [g.run(ops.add(g, "sum", [a, b])), later])))
    expect(() => g.backward(gradients)).toThrow("adding to da would change d")
  })

  test("refuses what nothing uses, and what has no gradient", () => {
    const { g, x, gradients, product } = start()
    product("h", x)
    expect(() => g.backward(gradients)).toThrow("h has no gradient: nothing uses it")

    const other = start()
    const cache = other.g.tensor("cache", [N, C], "cache")
    const position = other.g.tensor("position", [1], "pinned", "i32")
    const qkv = other.g.activation("qkv", [1, 1, 3 * C])
    other.g.run(ops.attentionDecode(other.g, "y", [cache, cache, qkv, position], 1))
    expect(() => other.g.backward(other.gradients)).toThrow("no gradient is declared")
  })
})

describe("fusion", () => {
  test("GPT-2 124M: a layer keeps 7 calls forward and 11 backward", () => {
    const config = preset("gpt2:d12")!
    const count = (fuse: boolean) => {
      const { phases } = trainingProgram(config, {
        B: 4,
        T: 64,
        accumulation: 1,
        adamw: ADAMW,
        fuse,
      })
      const counts = phases.map(({ name, calls }) => [name, calls.length] as const)
      return Object.fromEntries(counts)
    }
    const { L } = config
    // Layernorm twice, four products, attention; a GELU and two sums on their own without fusion.
    // Outside the layers: embedding, layernorm, product, classifier, mean.
    expect(count(true).forward).toBe(7 * L + 5)
    expect(count(false).forward).toBe(10 * L + 5)
    // Two gradients a product, one for each other op; sums have none. Fused, the classifier's is
    // made on the way forward.
    expect(count(true).backward).toBe(11 * L + 4)
    expect(count(false).backward).toBe(12 * L + 5)
    expect(count(true).decode).toBe(7 * L + 3)
    // Of the last layer only what makes its keys and values.
    expect(count(true).prefill).toBe(7 * (L - 1) + 4)
  })

  test("a product keeps what the gradient of GELU needs", () => {
    const { g, x, product } = start()
    g.run(ops.gelu(g, "out", [product("pre", x)]))
    const [call, ...rest] = fusePairs(g.forward())
    expect(rest).toEqual([])
    expect(call!.kernel).toBe("matmul_forward")
    expect(call!.args.slice(0, 2)).toMatchObject([{ name: "out" }, { name: "pre" }])
  })

  test("a sum joins the product that makes its second term, unless that is read elsewhere", () => {
    const { g, x, product } = start()
    const h = product("h", x)
    g.run(ops.add(g, "sum", [x, h]))
    const fused = fusePairs(g.forward())
    expect(kernels(fused)).toEqual(["matmul_forward"])
    expect(tensorsOf(fused[0]!)).toEqual(["sum", "x", "w", "x", "h.packed"])

    g.run(ops.gelu(g, "also", [h]))
    expect(kernels(fusePairs(g.forward()))).toEqual([
      "matmul_forward",
      "add_forward",
      "gelu_forward",
    ])
  })

  test("a gradient that is added to something keeps its own GELU pass", () => {
    const { g, x, product, gradients, loss } = start()
    const h = product("h", x)
    const gelu = g.run(ops.gelu(g, "gelu", [h]))
    const [first, second] = [product("first", gelu), product("second", gelu)]
    loss(g.run(ops.add(g, "sum", [first, second])))
    const fused = fusePairs(g.backward(gradients))
    expect(kernels(fused).filter((kernel) => kernel === "gelu_backward")).toHaveLength(1)
  })

  test("a bias's gradient is summed by the norm that completes what it is the sum of, once", () => {
    const { g, x, gradients, loss } = start()
    const parameter = (name: string, shape: number[]) => {
      const p = g.tensor(name, shape, "parameter")
      gradients.set(p, g.tensor(`d${name}`, shape, "gradient"))
      return p
    }
    const linear = (name: string, inp: Tensor) => {
      const [w, b] = [parameter(`${name}w`, [C, C]), parameter(`${name}b`, [C])]
      return g.run(ops.matmul(g, name, [inp, w, b]))
    }
    const sum = g.run(ops.add(g, "sum", [linear("one", x), linear("two", x)]))
    const [w, b] = [parameter("lnw", [C]), parameter("lnb", [C])]
    const norm = g.run(ops.layernorm(g, "ln", [sum, w, b]))
    loss(g.run(ops.add(g, "out", [sum, linear("branch", norm)])))

    const unfused = g.backward(gradients)
    const fused = fuseBiases(unfused)
    expect(kernels(fused)).toEqual(kernels(unfused))
    const isSummed = (call: Call) =>
      call.kernel === "layernorm_backward" || call.kernel === "matmul_backward_weight"
    const summed = fused.filter(isSummed).map(({ kernel, args }) => {
      const sums = args[kernel === "layernorm_backward" ? 3 : 1] as Tensor | null
      return [kernel, sums?.name ?? null]
    })
    expect<(string | null)[][]>(summed).toEqual([
      ["matmul_backward_weight", "dbranchb"], // the classifier makes what that is the sum of
      ["layernorm_backward", "dtwob"],
      ["matmul_backward_weight", null],
      ["matmul_backward_weight", "doneb"],
    ])

    // Added to another micro-batch's where the norm's own gradients are not.
    const again = unfused.map((call): Call => {
      const isNorm = call.kernel === "layernorm_backward"
      return isNorm ? { ...call, args: [...call.args.slice(0, -1), 1] } : call
    })
    expect(fuseBiases(again)).toEqual(again)
  })

  test("of GPT-2's biases none is summed by its product on a GPU, and all are on a CPU", () => {
    const config = { ...preset("gpt2:d12")!, L: 2 }
    const summedByProducts = (options: object) => {
      const given = { B: 4, T: 128, accumulation: 1, adamw: ADAMW, ...options }
      const { calls } = trainingProgram(config, given).phases.find(
        ({ name }) => name === "backward",
      )!
      const products = calls.filter(({ kernel }) => kernel === "matmul_backward_weight")
      return products.flatMap(({ args }) => (isTensor(args[1]!) ? [args[1].name] : []))
    }
    const of = (l: number) => ["fcproj", "fc", "attproj", "qkv"].map((name) => `d${name}b[${l}]`)
    for (const options of [{}, { recompute: "block" }, { classifierRows: 384 }] as const) {
      expect(summedByProducts({ ...options, platform: "cuda" })).toEqual([])
      expect(summedByProducts({ ...options, platform: "cpu" })).toEqual([...of(1), ...of(0)])
    }
  })

  test("the classifier works in place over the logits, unless something else reads them", () => {
    const { g, x, product, gradients, loss } = start()
    const logits = product("logits", x)
    loss(logits)
    const [forward, backward] = fuseClassifier(g.forward(), g.backward(gradients))
    expect(kernels(forward)).toEqual(["matmul_forward", "classifier_fused"])
    expect(kernels(backward)).toEqual(["matmul_backward_weight", "matmul_backward_input"])
    expect(tensorsOf(backward[1]!)).toContain("logits")
    expect(backward.flatMap(tensorsOf)).not.toContain("dlogits")

    const reader: Call = { kernel: "mean_forward", args: [x, logits, N * C] }
    const kept = fuseClassifier([...g.forward(), reader], g.backward(gradients))
    expect(kernels(kept[0])).toContain("classifier_forward")
    expect(kernels(kept[1])).toContain("classifier_backward")
  })
})
