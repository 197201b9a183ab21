/* Which of cuBLASLt's algorithms makes which product: chosen by the clock when a product is first
 * asked for, remembered, and kept by the caller beyond the process, since another algorithm may give
 * other bits. */
#include "cublaslt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#pragma GCC visibility push(default)
extern "C" {
#include "device.h"
}
#pragma GCC visibility pop

constexpr int TRIED = 16, ROUNDS = 3;
/* Statuses: faster without its epilogue and with a pass after it; by Hopper's own kernel. */
constexpr int IN_PASSES = -1, OWN = -2;

static const char *const FORMS[] = {"forward", "input", "weight"}; // of ProductForm

constexpr int LAYOUT = 2; // of a choice as it is kept: its members, and what their numbers mean

struct Choice {
    Key key;
    int status; // 0, or the cublasStatus_t for which the product is not cuBLASLt's
    float us;   // that it took; 0 where it was not timed
    Algorithm algorithm;
};
struct Plan {
    Choice choice;
    Described described;
    Plan *next;
};
static Plan *plans, **last = &plans;

static Plan *find(const Key &key) {
    Plan *plan = plans;
    while (plan && memcmp(&plan->choice.key, &key, sizeof key)) plan = plan->next;
    return plan;
}

static Plan *append(const Choice &choice) {
    Plan *const plan = (Plan *)calloc(1, sizeof(Plan));
    if (!plan) return nullptr;
    plan->choice = choice;
    *last = plan;
    last = &plan->next;
    return plan;
}

static size_t out_bytes(const Product &p) {
    const size_t each = p.kind == F32 || p.form == BACKWARD_WEIGHT ? sizeof(float) : sizeof(bf16);
    return (size_t)p.rows * p.columns * each;
}

/* Queues a product by one of cuBLASLt's algorithms, or by the own kernel without one; returns a
 * cublasStatus_t. */
static int run(const Plan &plan, const Algorithm *algorithm, const Product &p) {
    if (!algorithm) return product_hopper(p) ? 0 : STATUS_NOT_SUPPORTED;
    const int status = run_product(plan.described, *algorithm, p);
    if (!status && p.out_sums)
        column_sums(p.out_sums, p.out, p.kind == BF16, p.rows, p.columns, p.adds_sums);
    return status;
}

/* Microseconds of a run, the mean of `runs`; `status` of the last. */
static float time_runs(const Plan &plan, const Algorithm *algorithm, const Product &p, int runs,
                       cudaEvent_t from, cudaEvent_t to, int &status) {
    float ms = 0;
    keep_error(cudaEventRecord(from, stream));
    for (int i = 0; i < runs; i++) {
        status = run(plan, algorithm, p);
        if (status) return 0;
    }
    keep_error(cudaEventRecord(to, stream));
    keep_error(cudaEventSynchronize(to));
    keep_error(cudaEventElapsedTime(&ms, from, to));
    return ms * 1000 / runs;
}

/* Takes the fastest of the algorithms found and the own kernel. What is added to is not touched: another
 * place is. */
static void choose(Plan &plan, const Heuristic *found, int count, Product p) {
    Choice &choice = plan.choice;
    void *elsewhere = nullptr, *sums = nullptr;
    cudaEvent_t from = nullptr, to = nullptr;
    if (choice.key.added == 1) {
        if (cudaMalloc(&elsewhere, out_bytes(p)) != cudaSuccess) {
            cudaGetLastError();
            return;
        }
        p.out = elsewhere;
        p.added = elsewhere;
    }
    if (p.out_sums) {
        if (cudaMalloc(&sums, p.columns * sizeof(float)) != cudaSuccess) {
            cudaGetLastError();
            keep_error(cudaFree(elsewhere));
            return;
        }
        p.out_sums = (float *)sums;
        p.adds_sums = 0;
    }
    keep_error(cudaEventCreate(&from));
    keep_error(cudaEventCreate(&to));
    float best[TRIED + 1];
    int runs[TRIED + 1], winner = -1;
    for (int round = 0; round <= ROUNDS; round++) { // the first one warms up
        for (int i = 0; i <= count; i++) {
            int status = 0;
            if (round > 0 && runs[i] == 0) continue;
            const float us = time_runs(plan, i < count ? &found[i].algorithm : nullptr, p,
                                       round > 0 ? runs[i] : 1, from, to, status);
            if (status) {
                if (i < count) choice.status = status; // cuBLASLt's, which keep_refusal tells
                runs[i] = 0;                           // it is out
            } else if (round == 0) {
                runs[i] = 1 + (int)(200 / (us + 1));
            } else if (round == 1 || us < best[i]) {
                best[i] = us;
            }
        }
    }
    for (int i = 0; i <= count; i++)
        if (runs[i] && (winner < 0 || best[i] < best[winner])) winner = i;
    if (winner >= 0) {
        choice.status = winner < count ? 0 : OWN;
        choice.us = best[winner];
        if (winner < count) choice.algorithm = found[winner].algorithm;
    }
    keep_error(cudaEventDestroy(from));
    keep_error(cudaEventDestroy(to));
    keep_error(cudaFree(elsewhere));
    keep_error(cudaFree(sums));
}

/* What moving the bytes takes that a pass of its own reads and writes for the same result, in us. */
static float pass_us(const Product &p) {
    int device = 0, khz = 0, bits = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&khz, cudaDevAttrMemoryClockRate, device);
    cudaDeviceGetAttribute(&bits, cudaDevAttrGlobalMemoryBusWidth, device);
    const double peak = khz > 0 && bits > 0 ? 2e3 * khz * bits / 8 : 1e12; // bytes/s, two a clock
    const double stored = p.kind == F32 ? sizeof(float) : sizeof(bf16);
    const double out = (p.form == FORWARD ? 2. : 3.) + (p.out_sums ? 1 : 0); // times that it is moved
    const double numbers = p.sums ? (double)p.inner * p.rows : out * p.rows * p.columns;
    return (float)(3 + numbers * stored / (0.85 * peak) * 1e6);
}

static bool is_capturing() {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    keep_error(cudaStreamIsCapturing(stream, &status));
    return status != cudaStreamCaptureStatusNone;
}

static Plan *plan_for(const Product &p) {
    const Key key = key_of(p);
    Plan *plan = find(key);
    if (!plan) {
        plan = append({key, STATUS_NOT_SUPPORTED, 0, {}});
        if (!plan) return nullptr;
        plan->described = describe(key);
        Heuristic found[TRIED];
        const int count =
            plan->described.operation ? heuristics(found, TRIED, plan->described, key, p) : 0;
        if (count > 0) plan->choice = {key, 0, 0, found[0].algorithm};
        if (is_capturing()) return plan; // while recording nothing runs
        choose(*plan, found, count, p);
        if (p.pre || p.sums) {
            Product plain = p;
            plain.pre = nullptr;
            plain.sums = plain.out_sums = nullptr;
            const Plan *const other = plan_for(plain);
            const bool is_faster = other && other->choice.us > 0 && plan->choice.us > 0 &&
                                   other->choice.us + pass_us(p) < plan->choice.us;
            if (is_faster && other->choice.status != IN_PASSES) plan->choice.status = IN_PASSES;
        }
    } else if (!plan->described.operation && !plan->choice.status) { // it was loaded
        plan->described = describe(key);
        if (!plan->described.operation) plan->choice.status = STATUS_NOT_SUPPORTED;
    }
    return plan;
}

/* cuBLASLt's GELU is as exact as bf16 needs and no more; it takes rows of 8, and what is added comes
 * before it. */
static bool has_epilogue(const Product &p) {
    return !p.pre || (p.kind == BF16 && !p.added && p.columns % 8 == 0);
}

static bool prefers_own;
extern "C" void product_prefer_own(int on) { prefers_own = on; }

bool product(const Product &p) {
    if ((prefers_own || !cublaslt.Matmul) && product_hopper(p)) return true;
    if (!cublaslt.Matmul || !has_epilogue(p)) return false;
    Plan *const plan = plan_for(p);
    if (!plan || (plan->choice.status && plan->choice.status != OWN)) return false;
    const bool is_own = plan->choice.status == OWN;
    const int status = run(*plan, is_own ? nullptr : &plan->choice.algorithm, p);
    if (status) plan->choice.status = status;
    return status == 0;
}

bool keep_refusal(const Product &p) {
    if (!cublaslt.Matmul || (p.rows | p.columns | p.inner) % 16) return false;
    const Plan *const plan = find(key_of(p));
    char words[160];
    snprintf(words, sizeof words,
             "cuBLASLt refuses a product in eight bits, %s %d×%d×%d, with status %d", FORMS[p.form],
             p.rows, p.columns, p.inner, plan ? plan->choice.status : STATUS_NOT_SUPPORTED);
    keep_failure(words, cudaErrorNotSupported);
    return true;
}

// ---- what is kept, and told ----

struct Header {
    unsigned long long version; // of cuBLASLt
    int layout, count;
    char gpu[64];
};

static Header header() {
    Header made = {cublaslt.GetVersion ? cublaslt.GetVersion() : 0, LAYOUT, 0, {}};
    device_name(made.gpu, sizeof made.gpu);
    for (const Plan *plan = plans; plan; plan = plan->next) made.count++;
    return made;
}

extern "C" int product_plans_save(void *out, int size) {
    const Header head = header();
    const int bytes = (int)(sizeof head + head.count * sizeof(Choice));
    if (bytes > size) return bytes;
    char *at = (char *)memcpy(out, &head, sizeof head) + sizeof head;
    for (const Plan *plan = plans; plan; plan = plan->next, at += sizeof(Choice))
        memcpy(at, &plan->choice, sizeof(Choice));
    return bytes;
}

extern "C" int product_plans_load(const void *in, int size) {
    Header head, own = header();
    if (size < (int)sizeof head) return -1;
    memcpy(&head, in, sizeof head);
    if (head.version != own.version || head.layout != own.layout ||
        memcmp(head.gpu, own.gpu, sizeof own.gpu) || head.count < 0 ||
        (i64)size != (i64)sizeof head + (i64)head.count * (i64)sizeof(Choice))
        return -1;
    int taken = 0;
    for (int i = 0; i < head.count; i++) {
        Choice choice;
        memcpy(&choice, (const char *)in + sizeof head + i * sizeof choice, sizeof choice);
        Plan *const known = find(choice.key);
        if (known) known->choice = choice;
        if (known || append(choice)) taken++;
    }
    return taken;
}

static int config(const Choice &choice, int attribute) {
    int value = 0;
    size_t written;
    cublaslt.MatmulAlgoConfigGetAttribute(&choice.algorithm, attribute, &value, sizeof value,
                                          &written);
    return value;
}

extern "C" int product_report(char *out, int size) {
    static const char *const kinds[] = {"f32", "bf16", "fp8"};
    int used = 0;
    const auto write = [&](const char *format, auto... values) {
        const int room = used < size ? size - used : 0;
        used += snprintf(room ? out + used : nullptr, (size_t)room, format, values...);
    };
    write("%-8s %-5s %7s %7s %7s %5s %5s %9s %8s  %s\n", "form", "kind", "rows", "columns", "inner",
          "epil.", "added", "us", "TFLOP/s", "by");
    for (const Plan *plan = plans; plan; plan = plan->next) {
        const Choice &choice = plan->choice;
        const Key &key = choice.key;
        const double flops = 2. * key.rows * key.columns * key.inner;
        write("%-8s %-5s %7d %7d %7d %5d %5d %9.2f %8.1f  ", FORMS[key.form],
              key.compute == COMPUTE_TF32 ? "tf32" : kinds[key.kind], key.rows, key.columns,
              key.inner, key.epilogue, key.added, choice.us,
              choice.us > 0 ? flops / choice.us / 1e6 : 0.);
        if (choice.status == 0)
            write("algorithm %d, tile %d, stages %d, split %d\n", config(choice, ALGO_ID),
                  config(choice, ALGO_TILE), config(choice, ALGO_STAGES), config(choice, ALGO_SPLIT_K));
        else if (choice.status == IN_PASSES) write("passes, which are faster\n");
        else if (choice.status == OWN) write("own kernel\n");
        else write("passes or own kernel (status %d)\n", choice.status);
    }
    return used;
}
