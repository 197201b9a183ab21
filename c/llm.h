/* The kernel contract. c/reference, c/cpu and cuda implement every function below with these
 * names and signatures; nothing else specifies a kernel.
 *
 * B batch, T time, C channels, V vocabulary, Vp padded vocabulary (V <= Vp), NH heads, HS = C/NH head
 * size, OC output channels, N rows (usually B·T). Arguments stand in the order outputs, inputs,
 * scratch, sizes, options. Arrays are row-major and contiguous, 128-byte aligned unless said
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
typedef unsigned short bf16; /* the upper half of an f32: 8 bits of exponent, 7 of fraction */
typedef unsigned char e4m3;  /* 4 bits of exponent (bias 7), 3 of fraction, up to 448; no infinity */
typedef unsigned char e5m2;  /* 5 bits of exponent (bias 15), 2 of fraction, up to 57344 */

/* `real` is what weights and activations are stored in. A function REAL(name) exists twice: as `name`
 * for f32 and as `name_bf16` for bf16. Both compute and add up in f32, or wider; bf16 is widened when
 * it is read, and a result is rounded once, to nearest even, when it is stored. The bf16 kind may
 * round to bf16 what it multiplies in between (attention's probabilities and their gradients). A
 * file that defines LLM_BF16 before this one sees the bf16 kind. */
#ifdef LLM_BF16
typedef bf16 real;
#define REAL(name) name##_bf16
#else
typedef float real;
#define REAL(name) name
#endif

/* ---- the library ---- */

/* Sets how many threads the kernels use (n >= 1; 0 keeps the number) and returns the number in force. */
int llm_threads(int n);

/* Runs about `work` multiply-adds a thread on registers alone, in every thread at once, and returns
 * the floating-point operations done by all of them: divided by its time, the machine's peak, for
 * products of f32 and of bf16. */
double REAL(llm_peak)(i64 work);

/* ---- embedding ---- */

/* out[b,t,:] = wte[tokens[b,t],:] + wpe[positions[b] + t,:]
 * out (B,T,C) overwritten; tokens (B,T) i32, each in [0,Vp); wte (Vp,C); wpe (maxT,C);
 * positions (B) i32, or NULL for zeros; positions[b] + T <= maxT. */
void REAL(embedding_forward)(real *out, const int *tokens, const real *wte, const real *wpe,
                             const int *positions, int B, int T, int C);

/* dwte[tokens[b,t],:] += dout[b,t,:]; dwpe[t,:] += sum over b of dout[b,t,:]; rows are added in the
 * order of (b,t). dwte (Vp,C) by accumulate_wte, dwpe (maxT,C) by accumulate_wpe: rows without a
 * token become 0 when overwritten. dout (B,T,C). */
void REAL(embedding_backward)(float *dwte, float *dwpe, const real *dout, const int *tokens, int B,
                              int T, int C, int Vp, int maxT, int accumulate_wte,
                              int accumulate_wpe);

/* ---- layer normalisation (Ba, Kiros, Hinton 2016) ---- */

/* out = (inp - mean)·rstd·weight + bias, with rstd = 1/sqrt(variance + eps) over each row; the
 * variance is that of the population, in two passes. out (N,C), mean (N), rstd (N) overwritten;
 * mean and rstd may both be NULL; inp (N,C); weight, bias (C). */
void REAL(layernorm_forward)(real *out, float *mean, float *rstd, const real *inp,
                             const real *weight, const real *bias, int N, int C, float eps);

/* With n = (inp - mean)·rstd and g = dout·weight, over each row:
 * dinp = rstd·(g - avg(g) - n·avg(g·n)); dweight = sum over rows of dout·n; dbias = that of dout;
 * sums = that of dinp with what it was added to, as it is stored or before it is rounded: where dinp
 * is the gradient of a linear layer's result, that of its bias.
 * dinp (N,C) by accumulate_inp; dweight, dbias (C), sums (C) or NULL by accumulate. */
void REAL(layernorm_backward)(real *dinp, float *dweight, float *dbias, float *sums,
                              const real *dout, const real *inp, const real *weight,
                              const float *mean, const float *rstd, int N, int C,
                              int accumulate_inp, int accumulate);

/* ---- matrix products ---- */

/* pre = inp·weightᵀ + bias; out = gelu(pre) where pre is given, else pre; then out += residual.
 * The GELU is that of pre as it is stored, so that gelu_forward makes the same bits of pre again; on
 * a GPU it may be that of pre before it is rounded.
 * out (N,OC), pre (N,OC) or NULL overwritten; inp (N,C); weight (OC,C); bias (OC) or NULL;
 * residual (N,OC) or NULL; scratch: LLM_MATMUL_SCRATCH(N, C) floats.
 * A row of out has the same bits whatever the other rows are, and however many: in all products of
 * fewer than LLM_FEW_ROWS rows, and in all others; on a GPU, in all others of equally many rows, and
 * a product in bf16 may be rounded before a bias, a residual, or what it is added to, comes on top. */
void REAL(matmul_forward)(real *out, real *pre, const real *inp, const real *weight,
                          const real *bias, const real *residual, float *scratch, int N, int C,
                          int OC);

/* dinp = dout·weight, times gelu'(pre) where pre is given (the gradient then goes on through the
 * GELU whose output inp was); sums = the sum over rows of dinp, as it is stored or before it is rounded:
 * where dinp is the gradient of a linear layer's result, that of its bias.
 * dinp (N,C) by accumulate_inp; sums (C) or NULL by accumulate; dout (N,OC); weight (OC,C); pre (N,C)
 * or NULL. pre and accumulate_inp exclude each other. */
void REAL(matmul_backward_input)(real *dinp, float *sums, const real *dout, const real *weight,
                                 const real *pre, int N, int C, int OC, int accumulate_inp,
                                 int accumulate);

/* dweight = doutᵀ·inp; dbias = sum over rows of dout. dweight (OC,C), dbias (OC) or NULL by
 * accumulate; dout (N,OC); inp (N,C); scratch: LLM_MATMUL_SCRATCH(N, C) floats. */
void REAL(matmul_backward_weight)(float *dweight, float *dbias, const real *dout, const real *inp,
                                  float *scratch, int N, int C, int OC, int accumulate);

#define LLM_FEW_ROWS 16

/* Room for the rows of one operand, repacked for the microkernel: rows are rounded up to 64. */
#define LLM_MATMUL_SCRATCH(N, C) ((((i64)(N) + 63) / 64 * 64) * (i64)(C))

/* ---- element-wise ---- */

/* out = gelu(inp) = inp/2·(1 + tanh(sqrt(2/pi)·(inp + 0.044715·inp³))) (Hendrycks, Gimpel 2016).
 * out (n) overwritten; inp (n). */
void REAL(gelu_forward)(real *out, const real *inp, i64 n);

/* dinp = dout·gelu'(inp). dinp (n) overwritten, may be dout itself. */
void REAL(gelu_backward)(real *dinp, const real *dout, const real *inp, i64 n);

/* out = a + b. out (n) overwritten, may be a or b itself. */
void REAL(add_forward)(real *out, const real *a, const real *b, i64 n);

/* ---- attention, causal, multi-head (Vaswani et al. 2017; tiled as in Dao et al. 2022) ---- */

/* For every head: out = softmax(q·kᵀ/sqrt(HS), causal)·v. qkv (B,T,3C) holds q, k, v, each (NH,HS).
 * out (B,T,C) overwritten; lse (B,NH,T) overwritten with the log of the sum of exponentials of
 * each row's scaled scores, or NULL. No T×T tensor is stored. */
void REAL(attention_forward)(real *out, float *lse, const real *qkv, int B, int T, int C, int NH);

/* Gradients of q, k, v from those of out, with probabilities recomputed from lse; and sums = the sum
 * over tokens of dqkv, as it is stored or before it is rounded: the gradient of a bias in qkv.
 * dqkv (B,T,3C) overwritten; sums (3C) or NULL by accumulate; dout, out (B,T,C); qkv (B,T,3C);
 * lse (B,NH,T); scratch: LLM_ATTENTION_SCRATCH(B, T, C, NH) floats. */
void REAL(attention_backward)(real *dqkv, float *sums, const real *dout, const real *qkv,
                              const real *out, const float *lse, float *scratch, int B, int T, int C,
                              int NH, int accumulate);

/* Room for a number a row and head and, in bf16, for the gradients of k and v while they are summed,
 * or on a GPU for sums of some tokens. */
#define LLM_ATTENTION_SCRATCH(B, T, C, NH) \
    ((i64)(B) * (T) * ((NH) + (sizeof(real) < sizeof(float) ? 2 * (i64)(C) : 0)))

/* T new tokens of each sequence with its cache: k and v of qkv[b,t] are stored at row
 * positions[b] + t, then out[b,t] = softmax(q·kᵀ/sqrt(HS))·v over rows 0..positions[b] + t.
 * out (B,T,C) overwritten; kcache, vcache (B,maxT,C): the new tokens' rows overwritten, rows before
 * them read; qkv (B,T,3C); positions (B) i32, positions[b] + T <= maxT; scratch: B·NH·maxT floats.
 * A token's bits depend neither on the other sequences nor on how many there are; nor on how its own
 * sequence comes in pieces, as long as all are of one token, or all of several. */
void REAL(attention_decode)(real *out, real *kcache, real *vcache, const real *qkv,
                            const int *positions, float *scratch, int B, int T, int C, int NH,
                            int maxT);

/* ---- classifier: softmax and cross-entropy over the first V of Vp columns ---- */

/* losses[n] = -log softmax(logits[n])[targets[n]]. losses (N) overwritten; logits (N,Vp);
 * targets (N) i32 in [0,V). */
void REAL(classifier_forward)(float *losses, const real *logits, const int *targets, int N, int V,
                              int Vp);

/* dlogits = (softmax(logits) - onehot(targets))·scale; 0 in the padding columns.
 * dlogits (N,Vp) overwritten, may be logits itself. */
void REAL(classifier_backward)(real *dlogits, const real *logits, const int *targets, int N, int V,
                               int Vp, float scale);

/* Both in one pass: logits (N,Vp) become dlogits in place. */
void REAL(classifier_fused)(float *losses, real *logits, const int *targets, int N, int V, int Vp,
                            float scale);

/* ---- reductions ---- */

/* out[0] = sum(inp)/n, added up in f64. out (1) overwritten; inp (n). */
void mean_forward(float *out, const float *inp, i64 n);

/* out[0] = sum of inp², added up in f64 over a fixed tree. out: one f64, overwritten; inp (n). */
void squared_norm(double *out, const float *inp, i64 n);

/* ---- optimizer ---- */

/* What the updates of a step have in common, so that nobody waits for the gradient's norm:
 * norm = sqrt(sum of squares, added up in their order);
 * update = {lr, grad_scale, 1/(1-beta1^step), 1/(1-beta2^step), step}, where grad_scale is 1 if
 * clip <= 0 or norm <= clip, else clip/norm; and the last is NaN, which makes no update, if norm or
 * loss is not finite. update (5), norm (1) overwritten; controls (3) = {lr, step, counted from 1,
 * clip}; squares (count); loss (1). */
void update_begin(double *update, double *norm, const double *controls, const double *squares,
                  const float *loss, int count, float beta1, float beta2);

/* AdamW (Loshchilov, Hutter 2019), with what update_begin has made, and g = grad·grad_scale:
 * m = beta1·m + (1-beta1)·g; v = beta2·v + (1-beta2)·g²;
 * param -= lr·((m/(1-beta1^step)) / (sqrt(v/(1-beta2^step)) + eps) + weight_decay·param).
 * Nothing changes unless step >= 1. param, m, v (n) updated in place; grad (n); update (5). */
void adamw_update(float *param, float *m, float *v, const float *grad, const double *update, i64 n,
                  float beta1, float beta2, float eps, float weight_decay);

/* The same on parameters in bf16. Where master (n) f32 is given, it is what is read and updated, and
 * param is overwritten with its rounding; where it is NULL, param is updated in place. Rounding is to
 * nearest even, or with `stochastic` 1 to the neighbour away from zero with the probability of what
 * is cut off: the lower half of x is added to the f32's bits before they are cut, where
 * x = hash(i + hash((i>>32) + hash(stream + hash(step + hash(seed))))), all of 32 bits, and hash(x) is
 * x ^= x>>16; x *= 0x7feb352d; x ^= x>>15; x *= 0x846ca68b; x ^= x>>16 (Wellons 2018). Infinities and
 * NaN stay. param (n) bf16; m, v, grad (n) f32. */
void adamw_update_bf16(bf16 *param, float *master, float *m, float *v, const float *grad,
                       const double *update, i64 n, float beta1, float beta2, float eps,
                       float weight_decay, int stochastic, u32 seed, int stream);

/* out = inp, rounded to nearest even. out (n) bf16 overwritten; inp (n) f32. */
void bf16_round(bf16 *out, const float *inp, i64 n);

/* out = inp, exactly. out (n) f32 overwritten; inp (n) bf16. */
void bf16_widen(float *out, const bf16 *inp, i64 n);

/* ---- products of 8-bit floats (Micikevicius et al. 2022) ----
 *
 * A tensor is stored as q = round(x·scale), with one scale that brings its largest number near the
 * largest of its type, and products of such tensors are multiplied by 1/scale of both. Scales are
 * powers of two. They follow the largest numbers of the steps before, which are known when a tensor is
 * first touched. Activations and weights are e4m3, gradients e5m2.
 *
 * What is known of a tensor is a slot of LLM_FP8_SLOT floats: 1/scale; its scale; the largest |x| of
 * this step so far; that of each of LLM_FP8_WINDOW steps before, the newest first; the rest is unused.
 * Slots lie on 128 bytes, and 1/scale comes first: cuBLASLt's kernels take it from 16 alone.
 *
 * Tensor cores that multiply 8-bit floats want both factors with the sums' dimension last in memory.
 * So a tensor is stored twice, the second time transposed, for the product that sums over its rows. */

#define LLM_FP8_SLOT 32
#define LLM_FP8_WINDOW 16

/* A step ends: a slot's largest numbers move on by one, and that of the next step is 0. With most = the
 * largest of the window, scale becomes 2^floor(log2(largest/most)), within 2^±126, and 1/scale with it;
 * where most is 0 both stay, or become 1 where no step has met a number, and where it is NaN both are.
 * slots (count,LLM_FP8_SLOT), all 0 before the first step. */
void fp8_scales(float *slots, int count, float largest);

/* out and transposed = x·scale, rounded to nearest even, or to the largest number of that sign where it
 * is beyond; a NaN stays one. x = inp, or gelu(inp) with `gelu` 1. slot[2] becomes the larger of itself
 * and all |x|, and NaN where an x is one. With `calibrate` 1, for a tensor that no step has met, slot's
 * scales are first made of slot[2] as fp8_scales makes them, of 448.
 * out (N,C), transposed (C,N) overwritten, one of them may be NULL; slot updated; inp (N,C) bf16. */
void e4m3_quantize(e4m3 *out, e4m3 *transposed, float *slot, const bf16 *inp, int N, int C, int gelu,
                   int calibrate);

/* The same of a gradient, of 57344, with x = inp, or inp·gelu'(pre) where pre is given; and
 * sums = sum over rows of x, as it is before it is stored: the gradient of a bias.
 * sums (C) or NULL by accumulate; pre (N,C) or NULL; scratch: LLM_FP8_SCRATCH(N, C) floats. */
void e5m2_quantize(e5m2 *out, e5m2 *transposed, float *slot, float *sums, const bf16 *inp,
                   const bf16 *pre, float *scratch, int N, int C, int accumulate, int calibrate);

/* Room for the sums of every 128 rows. */
#define LLM_FP8_SCRATCH(N, C) (((i64)(N) + 127) / 128 * (i64)(C))

/* The products of the linear layer, of tensors and slots as the functions above have left them.
 * out = inp·weightᵀ + bias + residual. out (N,OC) bf16 overwritten; inp (N,C); weight (OC,C); bias (OC)
 * bf16; residual (N,OC) bf16 or NULL. On a GPU the sum may be rounded before the residual comes on top. */
void fp8_matmul_forward(bf16 *out, const e4m3 *inp, const e4m3 *weight, const float *inp_slot,
                        const float *weight_slot, const bf16 *bias, const bf16 *residual, int N, int C,
                        int OC);

/* dinp = dout·weight. dinp (N,C) bf16 by accumulate; dout (N,OC); weight (C,OC): it is transposed. */
void fp8_matmul_backward_input(bf16 *dinp, const e5m2 *dout, const e4m3 *weight,
                               const float *dout_slot, const float *weight_slot, int N, int C, int OC,
                               int accumulate);

/* dweight = doutᵀ·inp. dweight (OC,C) by accumulate; dout (OC,N) and inp (C,N): both are transposed. */
void fp8_matmul_backward_weight(float *dweight, const e5m2 *dout, const e4m3 *inp,
                                const float *dout_slot, const float *inp_slot, int N, int C, int OC,
                                int accumulate);

/* ---- initialisation ---- */

#define LLM_RNG_WORDS 625 /* mt19937: 624 state words and the index of the next one */

/* The generator's state for a seed (Matsumoto, Nishimura 1998). state: LLM_RNG_WORDS u32. */
void rng_seed(u32 *state, u32 seed);

/* Normal numbers as PyTorch's CPU normal_ draws them for a contiguous f32 tensor of n elements.
 * out (n) overwritten; state is advanced. */
void normal_fill(float *out, u32 *state, i64 n, float mean, float std);

#endif
