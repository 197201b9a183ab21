// What a run's options come to.

import { expect, test } from "bun:test"
import { TRAIN } from "../../src/commands/train-spec.ts"
import { builtinCorpus, natsOfFirst } from "../../src/data/corpus.ts"
import { parseOptions } from "../../src/options.ts"
import { openData } from "../../src/train/settings.ts"

test("the entropy that a validation loss is compared with is that of the same tokens", async () => {
  const shape = { B: 2, T: 128, vocabulary: 50257 }
  const { valEntropy } = await openData(parseOptions(TRAIN, []), shape)
  const { val, valScenes, valNatsPerToken } = await builtinCorpus()
  const [few, all] = [20 * 2 * 128, val.length - 1]
  expect(valEntropy!(few) * few).toBe(natsOfFirst(valScenes, few + 1))
  expect(valEntropy!(few)).not.toBeCloseTo(valNatsPerToken, 3)
  expect(valEntropy!(all)).toBeCloseTo(valNatsPerToken, 3)
})
