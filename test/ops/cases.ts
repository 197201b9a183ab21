// The one table of cases: every kernel of c/llm.h, run on every library.

import { adamwCases } from "./cases/adamw.ts"
import { attentionCases } from "./cases/attention.ts"
import { classifierCases } from "./cases/classifier.ts"
import { elementwiseCases } from "./cases/elementwise.ts"
import { embeddingCases } from "./cases/embedding.ts"
import { layernormCases } from "./cases/layernorm.ts"
import { matmulCases } from "./cases/matmul.ts"
import { reductionCases } from "./cases/reductions.ts"

export const cases = [
  ...embeddingCases,
  ...layernormCases,
  ...matmulCases,
  ...elementwiseCases,
  ...attentionCases,
  ...classifierCases,
  ...reductionCases,
  ...adamwCases,
]
