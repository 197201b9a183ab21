import { describe, expect, test } from "bun:test"
import { Random } from "../../src/data/random.ts"
import { Outliers } from "../../src/train/outliers.ts"

const WINDOW = 128
const random = new Random(3)
const numbers = Array.from({ length: 400 }, () => 2 + random.uniform())

describe("the z-score of the newest number", () => {
  test("is that within the last 128, and there is none before", () => {
    const outliers = new Outliers()
    for (const [i, x] of numbers.entries()) {
      const z = outliers.push(x)
      if (i < WINDOW) {
        expect(z).toBeUndefined()
        continue
      }
      const window = numbers.slice(i - WINDOW + 1, i + 1)
      const mean = window.reduce((a, b) => a + b) / WINDOW
      const square = window.reduce((sum, y) => sum + y * y, 0) / WINDOW
      // The variance the other way: 53 bits lose some digits to cancellation.
      expect(z).toBeCloseTo((x - mean) / Math.sqrt(square - mean ** 2), 9)
    }
  })

  test("of a jump is what the rule says, and 0 where nothing moves", () => {
    const outliers = new Outliers(Array.from({ length: WINDOW }, () => 3))
    expect(outliers.push(3)).toBe(0)
    // One number d above 127 equal ones: mean d/n above them, variance d²(n−1)/n².
    expect(outliers.push(1003)).toBeCloseTo(Math.sqrt(WINDOW - 1), 9)
  })

  test("goes on from a window that was saved", () => {
    const whole = new Outliers()
    for (const x of numbers.slice(0, 200)) whole.push(x)
    const saved = new Outliers(JSON.parse(JSON.stringify(whole.window)))
    for (const x of numbers.slice(200)) expect(saved.push(x)).toBe(whole.push(x)!)
    expect(saved.window).toHaveLength(WINDOW)
  })
})
