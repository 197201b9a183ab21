/* The kernel contract. c/reference, c/cpu and later cuda implement every function below with these
 * names and signatures; nothing else specifies a kernel.
 *
 * B batch, T time, C channels, V vocabulary, Vp padded vocabulary (V <= Vp), NH heads, HS = C/NH head
 * size, OC output channels, N rows (usually B·T). Arguments stand in the order outputs, inputs,
 * scratch, sizes, options. Arrays are f32, row-major and contiguous, 128-byte aligned unless said
 * otherwise, and do not alias unless said. An output is "overwritten" (what was there is never
 * read, not even NaN) or "added to"; with an `accumulate` option it is overwritten for 0, added to
 * for 1. Scratch is undefined before and after. Any size >= 1 is valid. Kernels never print, exit,
 * or allocate per call, and give the same bits for any number of threads.
 *
 * No system header is included, so that this compiles where libc's development files are missing. */
#ifndef LLM_H
#define LLM_H

typedef long long i64;
typedef unsigned int u32;

/* ---- the library ---- */

/* Sets how many threads the kernels use (n >= 1; 0 keeps the number) and returns the number in force. */
int llm_threads(int n);

/* Runs about `work` multiply-adds a thread on registers alone, in every thread at once, and returns
 * the floating-point operations done by all of them: divided by its time, the machine's f32 peak. */
double llm_peak_f32(i64 work);

/* ---- embedding ---- */

/* out[b,t,:] = wte[tokens[b,t],:] + wpe[position + t,:]
 * out (B,T,C) overwritten; tokens (B,T) i32, each in [0,Vp); wte (Vp,C); wpe (maxT,C);
 * position: one i32, or NULL for 0; position + T <= maxT. */
void embedding_forward(float *out, const int *tokens, const float *wte, const float *wpe,
                       const int *position, int B, int T, int C);

/* dwte[tokens[b,t],:] += dout[b,t,:]; dwpe[t,:] += sum over b of dout[b,t,:]; rows are added in the
 * order of (b,t). dwte (Vp,C) by accumulate_wte, dwpe (maxT,C) by accumulate_wpe: rows without a
 * token become 0 when overwritten. dout (B,T,C). */
void embedding_backward(float *dwte, float *dwpe, const float *dout, const int *tokens, int B, int T,
                        int C, int Vp, int maxT, int accumulate_wte, int accumulate_wpe);

/* ---- layer normalisation (Ba, Kiros, Hinton 2016) ---- */

/* out = (inp - mean)·rstd·weight + bias, with rstd = 1/sqrt(variance + eps) over each row; the
 * variance is that of the population, in two passes. out (N,C), mean (N), rstd (N) overwritten;
 * mean and rstd may both be NULL; inp (N,C); weight, bias (C). */
void layernorm_forward(float *out, float *mean, float *rstd, const float *inp, const float *weight,
                       const float *bias, int N, int C, float eps);

/* With n = (inp - mean)·rstd and g = dout·weight, over each row:
 * dinp = rstd·(g - avg(g) - n·avg(g·n)); dweight = sum over rows of dout·n; dbias = that of dout.
 * dinp (N,C) by accumulate_inp; dweight, dbias (C) by accumulate. */
void layernorm_backward(float *dinp, float *dweight, float *dbias, const float *dout,
                        const float *inp, const float *weight, const float *mean, const float *rstd,
                        int N, int C, int accumulate_inp, int accumulate);

/* ---- matrix products ---- */

/* pre = inp·weightᵀ + bias; out = gelu(pre) where pre is given, else pre; then out += residual.
 * out (N,OC), pre (N,OC) or NULL overwritten; inp (N,C); weight (OC,C); bias (OC) or NULL;
 * residual (N,OC) or NULL; scratch: LLM_MATMUL_SCRATCH(N, C) floats. */
void matmul_forward(float *out, float *pre, const float *inp, const float *weight, const float *bias,
                    const float *residual, float *scratch, int N, int C, int OC);

/* dinp = dout·weight, times gelu'(pre) where pre is given (the gradient then goes on through the
 * GELU whose output inp was). dinp (N,C) by accumulate; dout (N,OC); weight (OC,C); pre (N,C) or
 * NULL. pre and accumulate exclude each other. */
void matmul_backward_input(float *dinp, const float *dout, const float *weight, const float *pre,
                           int N, int C, int OC, int accumulate);

/* dweight = doutᵀ·inp; dbias = sum over rows of dout. dweight (OC,C), dbias (OC) or NULL by
 * accumulate; dout (N,OC); inp (N,C); scratch: LLM_MATMUL_SCRATCH(N, C) floats. */
void matmul_backward_weight(float *dweight, float *dbias, const float *dout, const float *inp,
                            float *scratch, int N, int C, int OC, int accumulate);

/* Room for the rows of one operand, repacked for the microkernel: rows are rounded up to 64. */
#define LLM_MATMUL_SCRATCH(N, C) ((((i64)(N) + 63) / 64 * 64) * (i64)(C))

/* ---- element-wise ---- */

/* out = gelu(inp) = inp/2·(1 + tanh(sqrt(2/pi)·(inp + 0.044715·inp³))) (Hendrycks, Gimpel 2016).
 * out (n) overwritten; inp (n). */
void gelu_forward(float *out, const float *inp, i64 n);

/* dinp = dout·gelu'(inp). dinp (n) overwritten, may be dout itself. */
void gelu_backward(float *dinp, const float *dout, const float *inp, i64 n);

/* out = a + b. out (n) overwritten, may be a or b itself. */
void add_forward(float *out, const float *a, const float *b, i64 n);

/* ---- attention, causal, multi-head (Vaswani et al. 2017; tiled as in Dao et al. 2022) ---- */

/* For every head: out = softmax(q·kᵀ/sqrt(HS), causal)·v. qkv (B,T,3C) holds q, k, v, each (NH,HS).
 * out (B,T,C) overwritten; lse (B,NH,T) overwritten with the log of the sum of exponentials of
 * each row's scaled scores, or NULL. No T×T tensor is stored. */
void attention_forward(float *out, float *lse, const float *qkv, int B, int T, int C, int NH);

/* Gradients of q, k, v from those of out, with probabilities recomputed from lse.
 * dqkv (B,T,3C) overwritten; dout, out (B,T,C); qkv (B,T,3C); lse (B,NH,T); scratch: B·NH·T floats. */
void attention_backward(float *dqkv, const float *dout, const float *qkv, const float *out,
                        const float *lse, float *scratch, int B, int T, int C, int NH);

/* One new token with a cache: k and v of qkv are stored at row `position`, then
 * out = softmax(q·kᵀ/sqrt(HS))·v over rows 0..position. out (C) overwritten; kcache, vcache
 * (maxT,C): row `position` overwritten, rows before it read; qkv (3C); position: one i32;
 * scratch: NH·maxT floats. */
void attention_decode(float *out, float *kcache, float *vcache, const float *qkv,
                      const int *position, float *scratch, int C, int NH, int maxT);

/* ---- classifier: softmax and cross-entropy over the first V of Vp columns ---- */

/* losses[n] = -log softmax(logits[n])[targets[n]]. losses (N) overwritten; logits (N,Vp);
 * targets (N) i32 in [0,V). */
void classifier_forward(float *losses, const float *logits, const int *targets, int N, int V, int Vp);

/* dlogits = (softmax(logits) - onehot(targets))·scale; 0 in the padding columns.
 * dlogits (N,Vp) overwritten, may be logits itself. */
void classifier_backward(float *dlogits, const float *logits, const int *targets, int N, int V,
                         int Vp, float scale);

/* Both in one pass: logits (N,Vp) become dlogits in place. */
void classifier_fused(float *losses, float *logits, const int *targets, int N, int V, int Vp,
                      float scale);

/* ---- reductions ---- */

/* out[0] = sum(inp)/n, added up in f64. out (1) overwritten; inp (n). */
void mean_forward(float *out, const float *inp, i64 n);

/* out[0] = sum of inp², added up in f64 over a fixed tree. out: one f64, overwritten; inp (n). */
void squared_norm(double *out, const float *inp, i64 n);

/* ---- optimizer ---- */

/* AdamW (Loshchilov, Hutter 2019), step counted from 1, with g = grad·grad_scale:
 * m = beta1·m + (1-beta1)·g; v = beta2·v + (1-beta2)·g²;
 * param -= lr·((m/(1-beta1^step)) / (sqrt(v/(1-beta2^step)) + eps) + weight_decay·param).
 * param, m, v (n) updated in place; grad (n). */
void adamw_update(float *param, float *m, float *v, const float *grad, i64 n, float lr, float beta1,
                  float beta2, float eps, float weight_decay, float grad_scale, int step);

/* ---- initialisation ---- */

#define LLM_RNG_WORDS 625 /* mt19937: 624 state words and the index of the next one */

/* The generator's state for a seed (Matsumoto, Nishimura 1998). state: LLM_RNG_WORDS u32. */
void rng_seed(u32 *state, u32 seed);

/* Normal numbers as PyTorch's CPU normal_ draws them for a contiguous f32 tensor of n elements.
 * out (n) overwritten; state is advanced. */
void normal_fill(float *out, u32 *state, i64 n, float mean, float std);

#endif
