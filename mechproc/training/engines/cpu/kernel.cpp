// Forward, loss, correct predictions and gradients of a small GPT-2-shaped model, on one thread, for one slice of a batch.
//
// The mathematics is mechproc/model/forward.py. What makes it fast, with what each brought for 1,000 haystack sequences
// of up to 63 tokens (2 layers, 4 heads, width 16; AMD Zen 4, 15 ms on one core) where it could be measured alone:
//  * LANES sequences are computed at once, one in each SIMD lane, so nothing is ever shuffled across lanes. An activation
//    is Vec x[pos][unit]; a weight is a scalar that all lanes share. (16 lanes against 8: 1.1 times as fast.)
//  * The caller sorts sequences by their last scored position and a group of lanes stops there: what comes later reaches
//    no scored logit (1.9 times). The last layer computes queries, MLP and logits only where there is loss. Both are exact.
//  * LayerNorm's w and b are folded into the next matrix, the attention's scale and log2(e) into W_Q: no work per token.
//  * Matrix products keep a tile of sums in registers and run at 70 to 90 % of the peak of the multipliers. Tiles are
//    unrolled by templates: arrays of vectors that a loop indexes would live on the stack.
//  * Queries share the loads of keys and values: 1.07 times forward, 1.06 times backward. One head's keys and values stay
//    in the first-level cache for all queries, and rows have odd strides: 1.04 and 1.05 times (Zen 5).
//  * Sums over tokens are kept lane by lane and added across lanes once per slice, always in the same order.
// Tried without gain, and left out: collecting the gradients of W_U over several groups.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#include <immintrin.h>

#ifndef LANES
#define LANES 16
#endif
#define INLINE __attribute__((always_inline))

typedef float Vec __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));

// 32 registers of AVX-512 hold 4 x 6 sums with their operands (5 % faster than 4 x 4 at width 64, equal at 16), 16 of
// AVX2 hold 3 x 4.
constexpr int TILE_ROWS = LANES == 16 ? 4 : 3, TILE_COLUMNS = LANES == 16 ? 6 : 4;
constexpr float LOG2_E = 1.44269504f, LN_2 = 0.693147181f;
constexpr float INF = __builtin_inff();

template <class F, int... I>
INLINE inline void unroll_over(F&& f, std::integer_sequence<int, I...>) { (f(std::integral_constant<int, I>{}), ...); }
template <int N, class F>
INLINE inline void unroll(F&& f) { unroll_over(f, std::make_integer_sequence<int, N>{}); }

INLINE inline Vec splat(float s) { return s - Vec{}; }
INLINE inline Vec load(const float* p) { Vec v; memcpy(&v, p, sizeof v); return v; }
INLINE inline void store(float* p, Vec v) { memcpy(p, &v, sizeof v); }

// 2^f for f from -1/2 to 1/2, relative error 1e-7; exactly 1 at 0, so that a query with one key is exact.
INLINE inline Vec exp2_fraction(Vec f) {
  Vec p = f * 0.00132647272f + 0.00967151264f;
  p = p * f + 0.0555073374f;
  p = p * f + 0.240222421f;
  p = p * f + 0.693146978f;
  return p * f + 1.0f;
}

// 2^x for x up to 127; 0 at minus infinity; NaN stays NaN.
INLINE inline Vec exp2(Vec x) {
#if LANES == 16
  const Vec f = (Vec)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT);  // 0 where x is infinite
  return (Vec)_mm512_scalef_ps((__m512)exp2_fraction(f), (__m512)(x - f));
#else
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, held in the low bits
  const Vec rounded = x + magic, f = x - (rounded - magic);
  const Vec r = (Vec)((Ints)exp2_fraction(f) + ((Ints)rounded << 23));
  return x < -126.0f ? Vec{} : r;  // no comparison with NaN holds
#endif
}

// Vecs from one token's row to the next. Odd, because rows a power of two apart share a few sets of the first-level cache
// and push each other out of it (4 to 6 % of an update).
constexpr long stride(long n) { return n | 1; }

constexpr long CHUNK = 2 * TILE_ROWS;  // tokens whose hidden units stay in the first-level cache

// ---- activation functions: value and derivative ------------------------------------------------------------------

enum Activation { GELU_NEW, GELU, RELU };

template <int ACT>
INLINE inline void activate(Vec x, Vec& value, Vec& slope) {
  if (ACT == RELU) {
    value = x <= 0.0f ? Vec{} : x;
    slope = x <= 0.0f ? Vec{} : splat(1.0f);
  } else if (ACT == GELU_NEW) {  // x * sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3)
    const float c = 0.797884561f, a = 0.044715f;
    Vec xx = x * x, minus_2u = x * (-2 * c * LOG2_E) * (1.0f + a * xx);
    minus_2u = minus_2u > 64.0f ? splat(64.0f) : minus_2u;
    Vec s = 1.0f / (1.0f + exp2(minus_2u));
    value = x * s;
    slope = s + value * (1.0f - s) * (2 * c) * (1.0f + 3 * a * xx);
  } else {  // x * Phi(x); erfc(z) = exp(-z^2) t P(t), t = 1 / (1 + 0.3 z), P fitted on 0 <= z <= 8 to 7e-9
    Vec z = (x < 0.0f ? -x : x) * 0.707106781f, t = 1.0f / (1.0f + 0.3f * z), density = exp2(x * x * (-0.5f * LOG2_E));
    Vec p = t * -0.12202224f + 0.446271176f;
    p = p * t - 0.424035087f;
    p = p * t + 0.436901612f;
    p = p * t - 0.00965124981f;
    p = p * t + 0.174205732f;
    p = p * t + 0.160223206f;
    p = p * t + 0.168785444f;
    p = p * t + 0.1693214f;
    Vec tail = 0.5f * density * t * p, phi = x < 0.0f ? tail : 1.0f - tail;
    value = x * phi;
    slope = phi + x * density * 0.398942280f;
  }
}

// ---- matrices ----------------------------------------------------------------------------------------------------

// y[r][c] = (y[r][c] if add) + (b[c] if b) + sum_i x[r][i] w[i][c] for ROWS tokens and COLUMNS outputs
template <int ROWS, int COLUMNS>
INLINE inline void product_tile(const Vec* x, long xs, long n_in, const float* w, long ws, const float* b, bool add,
    Vec* y, long ys) {
  Vec sum[ROWS][COLUMNS];
  unroll<ROWS>([&](auto r) INLINE { unroll<COLUMNS>([&](auto c) INLINE {
    sum[r][c] = add ? y[r * ys + c] : Vec{};
    if (b) sum[r][c] += b[c];
  }); });
  for (long i = 0; i < n_in; i++) {
    Vec in[ROWS];
    unroll<ROWS>([&](auto r) INLINE { in[r] = x[r * xs + i]; });
    unroll<COLUMNS>([&](auto c) INLINE {
      Vec weight = splat(w[i * ws + c]);
      unroll<ROWS>([&](auto r) INLINE { sum[r][c] += in[r] * weight; });
    });
  }
  unroll<ROWS>([&](auto r) INLINE { unroll<COLUMNS>([&](auto c) INLINE { y[r * ys + c] = sum[r][c]; }); });
}

// Calls f(width, first column) for tiles that cover n columns, with as few narrow ones as possible: 32 = 4 x 6 + 2 x 4.
template <class F>
INLINE inline void for_column_tiles(long n, F&& f) {
  constexpr int WIDE = TILE_COLUMNS;
  long c = 0, n_wide = n / WIDE - (WIDE == 6 && n % WIDE == 2 && n > WIDE);
  for (; n_wide > 0; n_wide--, c += WIDE) f(std::integral_constant<int, WIDE>{}, c);
  for (; c + 4 <= n; c += 4) f(std::integral_constant<int, 4>{}, c);
  for (; c + 2 <= n; c += 2) f(std::integral_constant<int, 2>{}, c);
  for (; c < n; c++) f(std::integral_constant<int, 1>{}, c);
}

template <int ROWS>
inline void product_rows(const Vec* x, long xs, long n_in, const float* w, long n_out, const float* b, bool add,
    Vec* y, long ys) {
  for_column_tiles(n_out, [&](auto width, long c) INLINE {
    product_tile<ROWS, width>(x, xs, n_in, w + c, n_out, b ? b + c : b, add, y + c, ys);
  });
}

// y[n][n_out] = x[n][n_in] w[n_in][n_out], plus b, plus what y was
static void product(const Vec* x, long xs, long n, long n_in, const float* w, long n_out, const float* b, bool add,
    Vec* y, long ys) {
  long r = 0;
  for (; r + TILE_ROWS <= n; r += TILE_ROWS) product_rows<TILE_ROWS>(x + r * xs, xs, n_in, w, n_out, b, add,
      y + r * ys, ys);
  const Vec* xr = x + r * xs;
  Vec* yr = y + r * ys;
  if (n - r == 3) product_rows<3>(xr, xs, n_in, w, n_out, b, add, yr, ys);
  if (n - r == 2) product_rows<2>(xr, xs, n_in, w, n_out, b, add, yr, ys);
  if (n - r == 1) product_rows<1>(xr, xs, n_in, w, n_out, b, add, yr, ys);
}

// g[i][j] += sum over n tokens of x[t][i] dy[t][j], for a tile of the weights
template <int ROWS, int COLUMNS>
INLINE inline void gradient_tile(const Vec* x, long xs, const Vec* dy, long dys, long n, Vec* g, long gs) {
  Vec sum[ROWS][COLUMNS];
  unroll<ROWS>([&](auto r) INLINE { unroll<COLUMNS>([&](auto c) INLINE { sum[r][c] = g[r * gs + c]; }); });
  for (long t = 0; t < n; t++) {
    Vec in[ROWS];
    unroll<ROWS>([&](auto r) INLINE { in[r] = x[t * xs + r]; });
    unroll<COLUMNS>([&](auto c) INLINE {
      Vec out = dy[t * dys + c];
      unroll<ROWS>([&](auto r) INLINE { sum[r][c] += in[r] * out; });
    });
  }
  unroll<ROWS>([&](auto r) INLINE { unroll<COLUMNS>([&](auto c) INLINE { g[r * gs + c] = sum[r][c]; }); });
}

template <int COLUMNS>
inline void gradient_columns(const Vec* x, long xs, long n_in, const Vec* dy, long dys, long n, Vec* g, long gs) {
  long i = 0;
  for (; i + TILE_ROWS <= n_in; i += TILE_ROWS) gradient_tile<TILE_ROWS, COLUMNS>(x + i, xs, dy, dys, n, g + i * gs,
      gs);
  for (; i < n_in; i++) gradient_tile<1, COLUMNS>(x + i, xs, dy, dys, n, g + i * gs, gs);
}

template <int COLUMNS>
inline void bias_gradient(const Vec* dy, long dys, long n, Vec* g) {
  Vec sum[COLUMNS];
  unroll<COLUMNS>([&](auto c) INLINE { sum[c] = g[c]; });
  for (long t = 0; t < n; t++) unroll<COLUMNS>([&](auto c) INLINE { sum[c] += dy[t * dys + c]; });
  unroll<COLUMNS>([&](auto c) INLINE { g[c] = sum[c]; });
}

// Bump allocator over the caller's workspace; with base = nullptr it only counts.
struct Arena {
  char* base;
  size_t used = 0;
  template <class T>
  T* take(long n) {
    size_t at = used;
    used += (n * sizeof(T) + 63) / 64 * 64;
    return base ? reinterpret_cast<T*>(base + at) : nullptr;
  }
};

// Rows [0, LANES) x lanes transposed in log2(LANES) rounds of swaps: 64 shuffles move 256 numbers (embedding rows to lanes).
template <int STEP, int... I>
INLINE inline void swap_halves(Vec& a, Vec& b, std::integer_sequence<int, I...>) {
#ifdef __clang__
  Vec low = __builtin_shufflevector(a, b, (I & STEP ? LANES + (I ^ STEP) : I)...);
  Vec high = __builtin_shufflevector(a, b, (I & STEP ? LANES + I : I ^ STEP)...);
#else
  Vec low = __builtin_shuffle(a, b, Ints{(I & STEP ? LANES + (I ^ STEP) : I)...});
  Vec high = __builtin_shuffle(a, b, Ints{(I & STEP ? LANES + I : I ^ STEP)...});
#endif
  a = low, b = high;
}
template <int STEP = 1>
INLINE inline void transpose(Vec* rows) {
  if constexpr (STEP < LANES) {
    unroll<LANES>([&](auto i) INLINE {
      if constexpr (!(i.value & STEP)) swap_halves<STEP>(rows[i], rows[i | STEP], std::make_integer_sequence<int,
          LANES>{});
    });
    transpose<2 * STEP>(rows);
  }
}

// sums[i] += the sum of v[i] over its lanes, added in one fixed order
static void add_lane_sums(const Vec* v, long n, float* sums) {
  for (long i = 0; i < n; i += LANES) {
    Vec rows[LANES], sum = {};
    for (long k = 0; k < LANES; k++) rows[k] = i + k < n ? v[i + k] : Vec{};
    transpose(rows);
    unroll<LANES>([&](auto k) INLINE { sum += rows[k]; });
    for (long k = 0; k < LANES && i + k < n; k++) sums[i + k] += sum[k];
  }
}

// y = x W + b, W [n_in][n_out]. Columns come from one or more tensors, each scaled, with the LayerNorm before them folded in:
// (w * x + b_ln) W + b = x (diag(w) W) + (b_ln W + b).
struct Linear {
  long n_in, n_out;
  float *w, *wt, *b;
  Vec *gw, *gb;  // gradients of w and b, lane by lane

  void allocate(Arena& arena, long in, long out, bool train) {
    n_in = in, n_out = out;
    w = arena.take<float>(in * out), b = arena.take<float>(out);
    if (train) wt = arena.take<float>(in * out), gw = arena.take<Vec>(in * out), gb = arena.take<Vec>(out);
  }
  // A tensor of n columns is stored as [n / block][n_in][block]: heads for Q, K, V; block = n for a plain matrix and block = 1
  // for a transposed one.
  void pack(long column, long n, long block, const float* weight, const float* bias, float scale, const float* ln_w,
      const float* ln_b) {
    for (long first = 0; first < n; first += block)
      for (long k = 0; k < block; k++) {
        const float* W = weight + first * n_in + k;
        const long j = first + k;
        double shift = bias ? bias[j] : 0.0;
        for (long i = 0; i < n_in; i++) {
          const float value = W[i * block];
          if (ln_b) shift += double(ln_b[i]) * value;
          w[i * n_out + column + j] = (ln_w ? ln_w[i] * value : value) * scale;
        }
        b[column + j] = float(shift * scale);
      }
  }
  void prepare_backward() {
    for (long i = 0; i < n_in; i++) for (long j = 0; j < n_out; j++) wt[j * n_in + i] = w[i * n_out + j];
    memset(gw, 0, n_in * n_out * sizeof(Vec)), memset(gb, 0, n_out * sizeof(Vec));
  }
  // Inverse of pack for the gradients: those of the folded w and b, given as scalars, become those of the tensors.
  void unpack(long column, long n, long block, const float* sw, const float* sb, const float* weight, float scale,
      const float* ln_w, const float* ln_b, float* g_weight, float* g_bias, float* g_ln_w, float* g_ln_b) const {
    for (long i = 0; i < n_in; i++) {
      double to_w = 0, to_b = 0;
      for (long first = 0; first < n; first += block) {
        const float *W = weight + first * n_in + i * block, *gW = sw + i * n_out + column + first;
        const float* gB = sb + column + first;
        float* to = g_weight + first * n_in + i * block;
        for (long k = 0; k < block; k++) {
          const float gw_ij = gW[k] * scale, gb_j = gB[k] * scale;
          to[k] += ln_w ? ln_w[i] * gw_ij + ln_b[i] * gb_j : gw_ij;
          to_w += double(W[k]) * gw_ij, to_b += double(W[k]) * gb_j;
        }
      }
      if (ln_w) g_ln_w[i] += float(to_w), g_ln_b[i] += float(to_b);
    }
    if (g_bias) for (long j = 0; j < n; j++) g_bias[j] += sb[column + j] * scale;
  }

  void forward(const Vec* x, long n, Vec* y, bool add = false) const {
    product(x, stride(n_in), n, n_in, w, n_out, b, add, y, stride(n_out));
  }
  void backward_input(const Vec* dy, long n, Vec* dx, bool add = false) const {
    product(dy, stride(n_out), n, n_out, wt, n_in, nullptr, add, dx, stride(n_in));
  }
  void backward_weights(const Vec* x, const Vec* dy, long n) {
    constexpr long BLOCK = 40;  // most tokens whose columns of x and dy stay in the first-level cache
    const long n_blocks = (n + BLOCK - 1) / BLOCK, xs = stride(n_in), dys = stride(n_out);
    for (long k = 0; k < n_blocks; k++) {
      const long t = n * k / n_blocks, count = n * (k + 1) / n_blocks - t;
      for_column_tiles(n_out, [&](auto width, long c) INLINE {
        const Vec* dyt = dy + t * dys + c;
        bias_gradient<width>(dyt, dys, count, gb + c);
        gradient_columns<width>(x + t * xs, xs, n_in, dyt, dys, count, gw + c, n_out);
      });
    }
  }
};

// ---- LayerNorm without w and b -------------------------------------------------------------------------------------

// x = (r - mean) / deviation, rs = 1 / deviation; a plain copy when the model has no LayerNorm
static void normalize(const Vec* r, long n, long d, bool norm, float eps, Vec* x, Vec* rs) {
  for (long t = 0; t < n; t++, r += stride(d), x += stride(d)) {
    if (!norm) { memcpy(x, r, d * sizeof(Vec)); continue; }
    Vec mean = {}, variance = {}, root;
    for (long i = 0; i < d; i++) mean += r[i];
    mean /= float(d);
    for (long i = 0; i < d; i++) { x[i] = r[i] - mean; variance += x[i] * x[i]; }
    variance = variance / float(d) + eps;
    for (int l = 0; l < LANES; l++) root[l] = sqrtf(variance[l]);
    rs[t] = 1.0f / root;
    for (long i = 0; i < d; i++) x[i] *= rs[t];
  }
}

// dr += (dx - mean(dx) - x mean(dx x)) / deviation
static void normalize_backward(const Vec* dx, const Vec* x, const Vec* rs, long n, long d, bool norm, Vec* dr) {
  for (long t = 0; t < n; t++, dx += stride(d), x += stride(d), dr += stride(d)) {
    if (!norm) { for (long i = 0; i < d; i++) dr[i] += dx[i]; continue; }
    Vec sum = {}, dot = {};
    for (long i = 0; i < d; i++) { sum += dx[i]; dot += dx[i] * x[i]; }
    sum *= rs[t] / float(d), dot *= rs[t] / float(d);
    for (long i = 0; i < d; i++) dr[i] += dx[i] * rs[t] - sum - x[i] * dot;
  }
}

// ---- dropout: the masks of mechproc/training/dropout.py ---------------------------------------------------------------

enum Site { EMBED, PATTERN, ATTN_OUT, MLP_OUT };

struct Dropout {
  uint32_t key0, key1, step, threshold;  // an activation is dropped when its word is below the threshold
  float scale;                           // 1 / (1 - rate)
};

// Philox4x32-10 (Salmon et al. 2011): four words for each lane from the counter (step, site and layer, item, position and unit / 4)
static void philox(const Dropout& drop, uint32_t site, const Words& item, const Words& place, Words* out) {
  uint32_t a[LANES], b[LANES], c[LANES], d[LANES], k0 = drop.key0, k1 = drop.key1;
  for (int l = 0; l < LANES; l++) a[l] = drop.step, b[l] = site, c[l] = item[l], d[l] = place[l];
  for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
    for (int l = 0; l < LANES; l++) {
      const uint64_t p = uint64_t(0xD2511F53u) * a[l], q = uint64_t(0xCD9E8D57u) * c[l];
      a[l] = uint32_t(q >> 32) ^ b[l] ^ k0, b[l] = uint32_t(q);
      c[l] = uint32_t(p >> 32) ^ d[l] ^ k1, d[l] = uint32_t(p);
    }
  memcpy(out, a, sizeof a), memcpy(out + 1, b, sizeof b), memcpy(out + 2, c, sizeof c), memcpy(out + 3, d, sizeof d);
}

// y = x dropped out, for n tokens at `position`. Used on gradients too: masks are computed twice rather than kept.
static void drop_out(const Dropout& drop, Site site, long layer, const Words& item, const Ints* position,
    const Vec* x, long n, long width, Vec* y) {
  for (long t = 0; t < n; t++, x += stride(width), y += stride(width))
    for (long i = 0; i < width; i += 4) {
      Words word[4];
      philox(drop, site << 16 | uint32_t(layer), item, (Words)position[t] << 16 | uint32_t(i / 4), word);
      for (long k = 0; k < 4 && i + k < width; k++) y[i + k] = word[k] < drop.threshold ? Vec{} : x[i + k] * drop.scale;
    }
}

// The masks of one head's patterns, key after key.
struct PatternMask {
  const Dropout* drop;
  uint32_t layer, first_unit;  // head * n_ctx
  Words item;
  template <int N>
  INLINE void at(long s, const Ints* position, Words (*word)[4]) const {
    if (s == 0 || (first_unit + s) % 4 == 0)
      for (int t = 0; t < N; t++) philox(*drop, PATTERN << 16 | layer, item,
          (Words)position[t] << 16 | uint32_t((first_unit + s) / 4), word[t]);
  }
};

// ---- attention -----------------------------------------------------------------------------------------------------

// Queries that share one load of a key. Forward holds q, z and the maxima in registers, backward q, dz and dq.
template <int D_HEAD> constexpr int QUERIES = LANES == 16 && D_HEAD == 4 ? 4 : D_HEAD <= 8 && LANES == 16 ? 2 : 1;
template <int D_HEAD> constexpr int QUERIES_BACK = LANES == 16 && D_HEAD == 4 ? 2 : 1;

// z = softmax(q k^T) v of N queries of one head. `seen` [query] is the last key that each lane's query may read. Scores
// arrive in units of log 2. e [key][query] keeps 2^(score - max), and `inverse` [query] 1 / sum: the pattern is e * inverse.
// With dropout e is negative where the pattern is dropped.
template <int D_HEAD, int N, bool DROP>
static void attend(const Vec* q, long qs, const Vec* k, const Vec* v, long kvs, long n_all, long n_keys,
    const Ints* seen, Vec* e, Vec* inverse,
                   long inverse_s, Vec* z, long zs, const PatternMask& mask) {
  Vec top[N];
  unroll<N>([&](auto t) INLINE { top[t] = splat(-INF); });
  auto score = [&](long s, auto masked) INLINE {
    Vec a[N] = {};
    unroll<D_HEAD>([&](auto i) INLINE {
      Vec key = k[s * kvs + i];
      unroll<N>([&](auto t) INLINE { a[t] += q[t * qs + i] * key; });
    });
    unroll<N>([&](auto t) INLINE {
      if (masked) a[t] = int32_t(s) > seen[t] ? splat(-INF) : a[t];
      top[t] = a[t] > top[t] ? a[t] : top[t];
      e[s * N + t] = a[t];
    });
  };
  for (long s = 0; s < n_all; s++) score(s, std::false_type{});  // keys that every lane of every query may read
  for (long s = n_all; s < n_keys; s++) score(s, std::true_type{});

  Vec sum[N] = {}, out[N][D_HEAD] = {};
  Words word[N][4];
  for (long s = 0; s < n_keys; s++) {
    Vec p[N];
    if (DROP) mask.at<N>(s, seen, word);
    unroll<N>([&](auto t) INLINE {
      p[t] = exp2(e[s * N + t] - top[t]);
      e[s * N + t] = p[t];
      sum[t] += p[t];
      if (DROP) {
        const auto dropped = word[t][(mask.first_unit + s) % 4] < mask.drop->threshold;
        e[s * N + t] = dropped ? -p[t] : p[t];
        p[t] = dropped ? Vec{} : p[t] * mask.drop->scale;
      }
    });
    unroll<D_HEAD>([&](auto i) INLINE {
      Vec value = v[s * kvs + i];
      unroll<N>([&](auto t) INLINE { out[t][i] += p[t] * value; });
    });
  }
  unroll<N>([&](auto t) INLINE {
    Vec one_by_sum = inverse[t * inverse_s] = 1.0f / sum[t];
    unroll<D_HEAD>([&](auto i) INLINE { z[t * zs + i] = out[t][i] * one_by_sum; });
  });
}

// dq, dk, dv of N of the queries that `attend` computed EN at a time. With p the pattern: dv += p dz, and the gradient of a
// score is p (dz.v - dz.z), because sum_s p dz.v = dz.z. Multiplying dz by `inverse` first spares one product for each e.
template <int D_HEAD, int N, int EN, bool DROP>
static void attend_backward(const Vec* q, long qs, const Vec* k, const Vec* v, long kvs, long n_keys, const Vec* e,
    const Vec* inverse,
                            long inverse_s, const Vec* z, const Vec* dz, long zs, Vec* dq, Vec* dk, Vec* dv,
                                float scale) {
  Vec query[N][D_HEAD], grad[N][D_HEAD], sum[N][D_HEAD] = {}, own[N] = {};
  unroll<N>([&](auto t) INLINE {
    unroll<D_HEAD>([&](auto i) INLINE {
      query[t][i] = q[t * qs + i] * LN_2;
      grad[t][i] = dz[t * zs + i] * inverse[t * inverse_s];
      own[t] += grad[t][i] * z[t * zs + i];
    });
  });
  for (long s = 0; s < n_keys; s++) {
    Vec ds[N] = {}, p[N];
    unroll<D_HEAD>([&](auto i) INLINE {
      Vec value = v[s * kvs + i];
      unroll<N>([&](auto t) INLINE { ds[t] += grad[t][i] * value; });
    });
    unroll<N>([&](auto t) INLINE {
      p[t] = e[s * EN + t];
      if (DROP) {
        const auto kept = p[t] > 0.0f;
        ds[t] = (kept ? p[t] : -p[t]) * ((kept ? ds[t] * scale : Vec{}) - own[t]);
        p[t] = kept ? p[t] * scale : Vec{};
      } else {
        ds[t] = p[t] * (ds[t] - own[t]);  // the same sum in the same order where z is v: exactly zero
      }
    });
    unroll<D_HEAD>([&](auto i) INLINE {
      Vec key = k[s * kvs + i], to_key = dk[s * kvs + i], to_value = dv[s * kvs + i];
      unroll<N>([&](auto t) INLINE {
        sum[t][i] += ds[t] * key, to_key += ds[t] * query[t][i], to_value += p[t] * grad[t][i];
      });
      dk[s * kvs + i] = to_key, dv[s * kvs + i] = to_value;
    });
  }
  unroll<N>([&](auto t) INLINE { unroll<D_HEAD>([&](auto i) INLINE { dq[t * qs + i] = sum[t][i] * LN_2; }); });
}

// ---- one slice of the batch ----------------------------------------------------------------------------------------

struct Shape {
  int64_t n_layers, n_heads, d_model, d_head, d_mlp, n_ctx, d_vocab, activation, norm, tied, unembed_bias;
  double eps;
};

struct Batch {  // tokens [item][pos]; the others [item][place]; places with real = 0 are left out
  const int64_t *tokens, *positions, *targets;
  const uint8_t* real;
  int64_t n_pos, n_places;
};

enum Status { OK = 0, BAD_TOKEN = 1, BAD_POSITION = 2, BAD_TARGET = 3 };

struct Block {  // names of activations: x* normalised input, r* 1 / deviation of a LayerNorm
  Linear q, kv, o, in, out;
  Vec *x1, *r1, *xq, *qs, *kvs, *e, *inverse, *z, *x2, *r2, *hidden, *slope;
  const float *ln1_w, *ln1_b, *W_Q, *b_Q, *W_K, *b_K, *W_V, *b_V, *W_O, *b_O, *ln2_w, *ln2_b, *W_in, *b_in, *W_out,
      *b_out;
};

struct Queries {  // of an attention layer: the last position that each may read, which is its own
  long n;
  Ints* seen;             // lane by lane
  int32_t *least, *most;  // over the lanes

  void allocate(Arena& arena, long n) {
    seen = arena.take<Ints>(n), least = arena.take<int32_t>(n), most = arena.take<int32_t>(n);
  }
  void set(long query, const Ints& last) {
    seen[query] = last, least[query] = most[query] = last[0];
    for (int l = 1; l < LANES; l++) {
      least[query] = last[l] < least[query] ? last[l] : least[query];
      most[query] = last[l] > most[query] ? last[l] : most[query];
    }
  }
};

struct Slice {
  const Shape& m;
  const Batch& batch;
  const Dropout* drop;   // nullptr: none
  const float* weights;  // flat, in the order of mechproc.model.state.tensor_shapes
  float* gradient;       // the same; nullptr: forward only
  long d, D, n_pos;
  long ds, Ds, kvs, Ms, Vs;  // strides of rows of d_model, D, 2 D, d_mlp, d_vocab
  const float *W_E, *W_pos, *ln_w, *ln_b, *W_U, *b_U;
  Block* blocks;
  Linear unembed;
  Vec *residual, *at_places, *xf, *rf, *logits, *d_residual, *d_places, *dx, *dx_places, *d_hidden, *dz, *dqs, *dkvs,
      *weight, *branch;
  Queries all, places;  // every position; those where there is loss
  Ints* place_target;
  int64_t* place_item;  // [place][lane], index into batch.real
  int64_t item[LANES];
  Words item_word;
  int32_t last[LANES];  // last scored position of each lane; -1 for a lane without an item

  Slice(const Shape& m, const Batch& batch, const Dropout* drop, const float* weights, float* gradient, bool train,
      Arena& arena)
      : m(m), batch(batch), drop(drop), weights(weights), gradient(gradient), d(m.d_model), D(m.n_heads * m.d_head),
          n_pos(batch.n_pos), ds(stride(d)), Ds(stride(D)), kvs(stride(2 * D)), Ms(stride(m.d_mlp)), Vs(stride(m.d_vocab)) {
    const long T = n_pos, S = batch.n_places, M = m.d_mlp, most = T > S ? T : S;
    blocks = arena.take<Block>(m.n_layers);
    Block counted;
    for (long l = 0; l < m.n_layers; l++) {
      Block& b = arena.base ? blocks[l] : counted;
      const long nq = l == m.n_layers - 1 ? S : T;
      b.q.allocate(arena, d, D, train), b.kv.allocate(arena, d, 2 * D, train), b.o.allocate(arena, D, d, train);
      if (M) b.in.allocate(arena, d, M, train), b.out.allocate(arena, M, d, train);
      b.x1 = arena.take<Vec>(T * ds), b.r1 = arena.take<Vec>(T);
      b.xq = l == m.n_layers - 1 ? arena.take<Vec>(S * ds) : b.x1;
      b.qs = arena.take<Vec>(nq * Ds), b.kvs = arena.take<Vec>(T * kvs), b.z = arena.take<Vec>(nq * Ds);
      b.e = arena.take<Vec>(m.n_heads * nq * T), b.inverse = arena.take<Vec>(nq * m.n_heads);
      if (M) {
        b.x2 = arena.take<Vec>(nq * ds), b.r2 = arena.take<Vec>(nq);
        b.hidden = arena.take<Vec>(nq * Ms), b.slope = arena.take<Vec>(nq * Ms);
      }
    }
    unembed.allocate(arena, d, m.d_vocab, train);
    xf = arena.take<Vec>(S * ds), rf = arena.take<Vec>(S), logits = arena.take<Vec>(S * Vs);
    residual = arena.take<Vec>(T * ds), at_places = arena.take<Vec>(S * ds);
    branch = arena.take<Vec>(most * ds);
    weight = arena.take<Vec>(S), place_target = arena.take<Ints>(S), all.allocate(arena, T), places.allocate(arena, S);
    place_item = arena.take<int64_t>(S * LANES);
    if (train) {
      d_residual = arena.take<Vec>(T * ds), d_places = arena.take<Vec>(S * ds);
      dx = arena.take<Vec>(most * ds), dx_places = arena.take<Vec>(S * ds);
      d_hidden = arena.take<Vec>(most * Ms), dz = arena.take<Vec>(most * Ds), dqs = arena.take<Vec>(most * Ds);
      dkvs = arena.take<Vec>(T * kvs);
    }
  }

  float* grad(const float* tensor) const { return tensor ? gradient + (tensor - weights) : nullptr; }

  // Where each tensor stands in the flat vector; folds, scales and transposes them.
  void pack() {
    const float* at = weights;
    auto next = [&](long n) { const float* tensor = at; at += n; return tensor; };
    auto next_norm = [&](const float*& w, const float*& b) { w = m.norm ? next(d) : nullptr,
        b = m.norm ? next(d) : nullptr; };
    W_E = next(m.d_vocab * d), W_pos = next(m.n_ctx * d);
    const float scale = LOG2_E / sqrtf(float(m.d_head));
    for (long l = 0; l < m.n_layers; l++) {
      Block& b = blocks[l];
      next_norm(b.ln1_w, b.ln1_b);
      b.W_Q = next(d * D), b.b_Q = next(D), b.W_K = next(d * D), b.b_K = next(D), b.W_V = next(d * D), b.b_V = next(D);
      b.W_O = next(D * d), b.b_O = next(d);
      b.q.pack(0, D, m.d_head, b.W_Q, b.b_Q, scale, b.ln1_w, b.ln1_b);
      b.kv.pack(0, D, m.d_head, b.W_K, b.b_K, 1, b.ln1_w, b.ln1_b);
      b.kv.pack(D, D, m.d_head, b.W_V, b.b_V, 1, b.ln1_w, b.ln1_b);
      b.o.pack(0, d, d, b.W_O, b.b_O, 1, nullptr, nullptr);
      if (m.d_mlp) {
        next_norm(b.ln2_w, b.ln2_b);
        b.W_in = next(d * m.d_mlp), b.b_in = next(m.d_mlp), b.W_out = next(m.d_mlp * d), b.b_out = next(d);
        b.in.pack(0, m.d_mlp, m.d_mlp, b.W_in, b.b_in, 1, b.ln2_w, b.ln2_b);
        b.out.pack(0, d, d, b.W_out, b.b_out, 1, nullptr, nullptr);
      }
    }
    next_norm(ln_w, ln_b);
    W_U = m.tied ? W_E : next(d * m.d_vocab), b_U = m.unembed_bias ? next(m.d_vocab) : nullptr;
    unembed.pack(0, m.d_vocab, m.tied ? 1 : m.d_vocab, W_U, b_U, 1, ln_w, ln_b);
    for (long t = 0; t < n_pos; t++) all.set(t, Ints{} + int32_t(t));
    if (!gradient) return;
    memset(gradient, 0, (at - weights) * sizeof(float));
    for_each_linear([](Linear& x) { x.prepare_backward(); });
  }

  template <class F>
  void for_each_linear(F f) {
    for (long l = 0; l < m.n_layers; l++) {
      f(blocks[l].q), f(blocks[l].kv), f(blocks[l].o);
      if (m.d_mlp) f(blocks[l].in), f(blocks[l].out);
    }
    f(unembed);
  }

  // Lane sums into the flat gradient, back through the folding. One lane sum lies where the transposed weights were.
  void unpack() {
    for_each_linear([](Linear& x) {
      memset(x.wt, 0, x.n_in * x.n_out * sizeof(float)), memset(x.b, 0, x.n_out * sizeof(float));
      add_lane_sums(x.gw, x.n_in * x.n_out, x.wt), add_lane_sums(x.gb, x.n_out, x.b);
    });
    auto undo = [&](Linear& x, long column, long n, long block, const float* W, const float* b, float scale,
        const float* w, const float* s) {
      x.unpack(column, n, block, x.wt, x.b, W, scale, w, s, grad(W), grad(b), grad(w), grad(s));
    };
    const float scale = LOG2_E / sqrtf(float(m.d_head));
    for (long l = 0; l < m.n_layers; l++) {
      Block& b = blocks[l];
      // A constant added to all keys moves no softmax: the gradient of b_K is zero, and is set so instead of summing rounding.
      memset(b.kv.b, 0, D * sizeof(float));
      undo(b.q, 0, D, m.d_head, b.W_Q, b.b_Q, scale, b.ln1_w, b.ln1_b);
      undo(b.kv, 0, D, m.d_head, b.W_K, b.b_K, 1, b.ln1_w, b.ln1_b);
      undo(b.kv, D, D, m.d_head, b.W_V, b.b_V, 1, b.ln1_w, b.ln1_b);
      undo(b.o, 0, d, d, b.W_O, b.b_O, 1, nullptr, nullptr);
      if (m.d_mlp) {
        undo(b.in, 0, m.d_mlp, m.d_mlp, b.W_in, b.b_in, 1, b.ln2_w, b.ln2_b);
        undo(b.out, 0, d, d, b.W_out, b.b_out, 1, nullptr, nullptr);
      }
    }
    undo(unembed, 0, m.d_vocab, m.tied ? 1 : m.d_vocab, W_U, b_U, 1, ln_w, ln_b);
  }

  // Reads the places of LANES items. Sets T, the positions that matter, and S, the most places of a lane.
  Status read_group(const int64_t* items, long n_items, long& T, long& S) {
    T = S = 0;
    long count[LANES] = {};
    item_word = Words{};
    for (long l = 0; l < LANES; l++) {
      last[l] = -1, item[l] = items[l < n_items ? l : 0], item_word[l] = uint32_t(item[l]);
      for (long n = 0; n < batch.n_places && l < n_items; n++) {
        const int64_t at = item[l] * batch.n_places + n, pos = batch.positions[at], target = batch.targets[at];
        if (!batch.real[at]) continue;
        if (pos < 0 || pos >= n_pos) return BAD_POSITION;
        if (target < 0 || target >= m.d_vocab) return BAD_TARGET;
        const long place = count[l]++;
        if (place == S) weight[S] = Vec{}, places.seen[S] = Ints{} - 1, place_target[S] = Ints{}, S++;
        weight[place][l] = 1, places.seen[place][l] = int32_t(pos), place_target[place][l] = int32_t(target);
        place_item[place * LANES + l] = at;
        if (pos > last[l]) last[l] = int32_t(pos);
      }
      if (last[l] >= T) T = last[l] + 1;
    }
    for (long n = 0; n < S; n++) {  // a lane without this place computes one of the same length, with weight 0
      const Ints pos = places.seen[n];
      int32_t longest = 0;
      for (int l = 0; l < LANES; l++) longest = pos[l] > longest ? pos[l] : longest;
      places.set(n, pos < 0 ? Ints{} + longest : pos);
    }
    all.n = T, places.n = S;
    for (long l = 0; l < LANES; l++)
      for (long t = 0; t < T; t++)
        if (uint64_t(batch.tokens[item[l] * n_pos + t]) >= uint64_t(m.d_vocab)) return BAD_TOKEN;
    return OK;
  }

  const float* embedding(long lane, long t) const { return W_E + batch.tokens[item[lane] * n_pos + t] * d; }

  // residual = W_E[token] + W_pos. Rows are read whole and transposed into lanes.
  void embed(long T) {
    for (long t = 0; t < T; t++) {
      Vec* r = residual + t * ds;
      long i = 0;
      for (; i + LANES <= d; i += LANES) {
        Vec rows[LANES];
        unroll<LANES>([&](auto l) INLINE { rows[l] = load(embedding(l, t) + i); });
        transpose(rows);
        unroll<LANES>([&](auto k) INLINE { r[i + k] = rows[k] + W_pos[t * d + i + k]; });
      }
      for (; i < d; i++) for (long l = 0; l < LANES; l++) r[i][l] = embedding(l, t)[i] + W_pos[t * d + i];
    }
  }

  void embed_backward(long T) {
    float *g_E = grad(W_E), *g_pos = grad(W_pos);
    for (long t = 0; t < T; t++) {
      const Vec* r = d_residual + t * ds;
      long i = 0;
      for (; i + LANES <= d; i += LANES) {
        Vec rows[LANES], sum = load(g_pos + t * d + i);
        unroll<LANES>([&](auto k) INLINE { rows[k] = r[i + k]; });
        transpose(rows);
        unroll<LANES>([&](auto l) INLINE {
          if (t > last[l]) return;
          sum += rows[l];
          float* to = g_E + (embedding(l, t) - W_E) + i;
          store(to, load(to) + rows[l]);
        });
        store(g_pos + t * d + i, sum);
      }
      for (; i < d; i++)
        for (long l = 0; l < LANES; l++)
          if (t <= last[l]) g_E[embedding(l, t) - W_E + i] += r[i][l], g_pos[t * d + i] += r[i][l];
    }
  }

  // f(position, lanes that are there) for each position that occurs; groups have few, because items are sorted.
  template <class F>
  INLINE void for_positions(const Ints& positions, F&& f) const {
    for (int l = 0; l < LANES; l++) {
      bool new_one = true;
      for (int before = 0; before < l; before++) new_one &= positions[before] != positions[l];
      if (new_one) f(long(positions[l]), positions == positions[l]);
    }
  }
  // to[place][i] = from[position of the place][i], which differs between lanes
  void gather(const Vec* from, long S, Vec* to) const {
    for (long n = 0; n < S; n++)
      for_positions(places.seen[n], [&](long pos, Ints here) INLINE {
        for (long i = 0; i < d; i++) to[n * ds + i] = here ? from[pos * ds + i] : to[n * ds + i];
      });
  }
  void scatter_add(const Vec* from, long S, Vec* to) const {
    for (long n = 0; n < S; n++)
      for_positions(places.seen[n], [&](long pos, Ints here) INLINE {
        for (long i = 0; i < d; i++) to[pos * ds + i] += here ? from[n * ds + i] : Vec{};
      });
  }

  // N queries of one head from query `first` on; e moves on behind what they take
  template <int D_HEAD, int N, bool DROP>
  void attention_tile(Block& b, bool back, const Queries& queries, long h, long first, Vec*& e) {
    long least = queries.least[first], most = queries.most[first];
    for (int n = 1; n < N; n++) {
      least = queries.least[first + n] < least ? queries.least[first + n] : least;
      most = queries.most[first + n] > most ? queries.most[first + n] : most;
    }
    const long n_keys = most + 1, at = first * Ds + h * D_HEAD;
    const Vec *k = b.kvs + h * D_HEAD, *v = k + D, *q = b.qs + at;
    Vec *z = b.z + at, *inverse = b.inverse + first * m.n_heads + h;
    if (back) {
      constexpr int B = QUERIES_BACK<D_HEAD> < N ? QUERIES_BACK<D_HEAD> : N;
      Vec *dk = dkvs + h * D_HEAD, *dv = dk + D;
      auto back_from = [&](auto n, long t) INLINE {
        attend_backward<D_HEAD, n, N, DROP>(q + t * Ds, Ds, k, v, kvs, n_keys, e + t, inverse + t * m.n_heads,
            m.n_heads, z + t * Ds, dz + at + t * Ds, Ds, dqs + at + t * Ds, dk, dv, DROP ? drop->scale : 1.0f);
      };
      for (long t = 0; t + B <= N; t += B) back_from(std::integral_constant<int, B>{}, t);
      if constexpr (N % B) back_from(std::integral_constant<int, 1>{}, N - 1);
    } else {
      const PatternMask mask{drop, uint32_t(&b - blocks), uint32_t(h * m.n_ctx), item_word};
      attend<D_HEAD, N, DROP>(q, Ds, k, v, kvs, least + 1, n_keys, queries.seen + first, e, inverse, m.n_heads, z, Ds,
          mask);
    }
    e += n_keys * N;
  }

  // Head after head, so that its keys and values stay in the first-level cache for all queries.
  template <int D_HEAD, bool DROP>
  void attention_heads(Block& b, bool back, const Queries& queries) {
    constexpr int N = QUERIES<D_HEAD>;
    Vec* e = b.e;
    for (long h = 0; h < m.n_heads; h++) {
      long t = 0;
      for (; t + N <= queries.n; t += N) attention_tile<D_HEAD, N, DROP>(b, back, queries, h, t, e);
      if constexpr (N > 2) if (queries.n - t == 3) attention_tile<D_HEAD, 3, DROP>(b, back, queries, h, t, e), t += 3;
      if constexpr (N > 2) if (queries.n - t == 2) attention_tile<D_HEAD, 2, DROP>(b, back, queries, h, t, e), t += 2;
      if (queries.n - t == 1) attention_tile<D_HEAD, 1, DROP>(b, back, queries, h, t, e);
    }
  }

  template <bool DROP>
  void attention_widths(Block& b, bool back, const Queries& queries) {
    switch (m.d_head) {
      case 4: return attention_heads<4, DROP>(b, back, queries);
      case 8: return attention_heads<8, DROP>(b, back, queries);
      case 16: return attention_heads<16, DROP>(b, back, queries);
      default: return attention_heads<32, DROP>(b, back, queries);
    }
  }
  void attention(Block& b, bool back, const Queries& queries) {
    drop ? attention_widths<true>(b, back, queries) : attention_widths<false>(b, back, queries);
  }

  // r += x W + b of a matrix that writes into the residual stream, dropped out if that is asked for
  void write(const Linear& matrix, const Vec* x, long n, Site site, long layer, const Ints* position, Vec* r) {
    if (!drop) return matrix.forward(x, n, r, true);
    matrix.forward(x, n, branch);
    drop_out(*drop, site, layer, item_word, position, branch, n, d, branch);
    for (long t = 0; t < n; t++) for (long i = 0; i < d; i++) r[t * ds + i] += branch[t * ds + i];
  }
  // The gradient of what such a matrix wrote
  const Vec* written(const Vec* dr, long n, Site site, long layer, const Ints* position) {
    if (drop) drop_out(*drop, site, layer, item_word, position, dr, n, d, branch);
    return drop ? branch : dr;
  }

  template <int ACT>
  void activate_rows(Block& b, long from, long n) {
    for (long t = from; t < from + n; t++)
      for (long j = 0; j < m.d_mlp; j++) {
        Vec& x = b.hidden[t * Ms + j];
        activate<ACT>(x, x, b.slope[t * Ms + j]);
      }
  }

  void forward(long T, long S) {
    const float eps = float(m.eps);
    embed(T);
    if (drop) drop_out(*drop, EMBED, 0, item_word, all.seen, residual, T, d, residual);
    Vec* r = residual;
    for (long l = 0; l < m.n_layers; l++) {
      Block& b = blocks[l];
      const bool pruned = l == m.n_layers - 1;
      const Queries& queries = pruned ? places : all;
      const long n = queries.n;
      const Ints* position = queries.seen;
      normalize(r, T, d, m.norm, eps, b.x1, b.r1);
      b.kv.forward(b.x1, T, b.kvs);
      if (pruned) gather(b.x1, S, b.xq), gather(r, S, at_places), r = at_places;
      b.q.forward(b.xq, n, b.qs);
      attention(b, false, queries);
      for (long t = 0; t < n; t += CHUNK) {
        const long c = n - t < CHUNK ? n - t : CHUNK;
        Vec* rt = r + t * ds;
        write(b.o, b.z + t * Ds, c, ATTN_OUT, l, position + t, rt);
        if (!m.d_mlp) continue;
        normalize(rt, c, d, m.norm, eps, b.x2 + t * ds, b.r2 + t);
        b.in.forward(b.x2 + t * ds, c, b.hidden + t * Ms);
        if (m.activation == GELU_NEW) activate_rows<GELU_NEW>(b, t, c);
        else if (m.activation == GELU) activate_rows<GELU>(b, t, c);
        else activate_rows<RELU>(b, t, c);
        write(b.out, b.hidden + t * Ms, c, MLP_OUT, l, position + t, rt);
      }
    }
    normalize(r, S, d, m.norm, eps, xf, rf);
    unembed.forward(xf, S, logits);
  }

  // f(v % 4, v) for v = 0 .. n-1
  template <class F>
  INLINE void for_fours(long n, F&& f) const {
    long v = 0;
    for (; v + 4 <= n; v += 4) unroll<4>([&](auto k) INLINE { f(k, v + k); });
    for (; v < n; v++) f(std::integral_constant<int, 0>{}, v);
  }

  // Sums the cross-entropy, marks correct predictions (ties go to the smaller token) and turns logits into their gradients.
  double loss(long S, uint8_t* correct) {
    double total = 0;
    for (long n = 0; n < S; n++) {
      Vec* x = logits + n * Vs;
      // Four tokens at a time, because each step of a maximum or a sum waits for the one before it.
      Vec tops[4] = {x[0], x[0], x[0], x[0]}, sums[4] = {}, chosen;
      Ints firsts[4];
      for_fours(m.d_vocab, [&](auto k, long v) INLINE { tops[k] = x[v] > tops[k] ? x[v] : tops[k]; });
      for (int k = 1; k < 4; k++) tops[0] = tops[k] > tops[0] ? tops[k] : tops[0];
      const Vec top = tops[0];
      for (int l = 0; l < LANES; l++) chosen[l] = x[place_target[n][l]][l];
      for (int k = 0; k < 4; k++) firsts[k] = Ints{} + INT32_MAX;
      for_fours(m.d_vocab, [&](auto k, long v) INLINE {
        const Ints here = Ints{} + int32_t(v);
        firsts[k] = x[v] == top && here < firsts[k] ? here : firsts[k];
        x[v] = exp2((x[v] - top) * LOG2_E), sums[k] += x[v];
      });
      for (int k = 1; k < 4; k++) firsts[0] = firsts[k] < firsts[0] ? firsts[k] : firsts[0], sums[0] += sums[k];
      const Ints best = firsts[0];
      const Vec sum = sums[0];
      const Vec share = weight[n] / sum;
      for (int l = 0; l < LANES; l++) {
        if (weight[n][l] == 0) continue;
        total += std::log(double(sum[l])) + (double(top[l]) - double(chosen[l]));
        correct[place_item[n * LANES + l]] = best[l] == place_target[n][l];
      }
      for (long v = 0; v < m.d_vocab && gradient; v++) x[v] *= share;
      for (int l = 0; l < LANES && gradient; l++) x[place_target[n][l]][l] -= weight[n][l];
    }
    return total;
  }

  void backward(long T, long S) {
    memset(d_places, 0, S * ds * sizeof(Vec)), memset(d_residual, 0, T * ds * sizeof(Vec));
    unembed.backward_weights(xf, logits, S);
    unembed.backward_input(logits, S, dx);
    normalize_backward(dx, xf, rf, S, d, m.norm, d_places);
    for (long l = m.n_layers - 1; l >= 0; l--) {
      Block& b = blocks[l];
      const bool pruned = l == m.n_layers - 1;
      const Queries& queries = pruned ? places : all;
      const long n = queries.n, M = m.d_mlp;
      const Ints* position = queries.seen;
      Vec* dr = pruned ? d_places : d_residual;
      if (M) {
        const Vec* dy = written(dr, n, MLP_OUT, l, position);
        b.out.backward_weights(b.hidden, dy, n);
        for (long t = 0; t < n; t += CHUNK) {
          const long c = n - t < CHUNK ? n - t : CHUNK;
          Vec* dh = d_hidden + t * Ms;
          b.out.backward_input(dy + t * ds, c, dh);
          for (long s = 0; s < c; s++) for (long j = 0; j < M; j++) dh[s * Ms + j] *= b.slope[(t + s) * Ms + j];
          b.in.backward_input(dh, c, dx + t * ds);
        }
        b.in.backward_weights(b.x2, d_hidden, n);
        normalize_backward(dx, b.x2, b.r2, n, d, m.norm, dr);
      }
      const Vec* dy = written(dr, n, ATTN_OUT, l, position);
      b.o.backward_weights(b.z, dy, n);
      b.o.backward_input(dy, n, dz);
      memset(dkvs, 0, T * kvs * sizeof(Vec));
      attention(b, true, queries);
      b.q.backward_weights(b.xq, dqs, n);
      b.kv.backward_weights(b.x1, dkvs, T);
      b.kv.backward_input(dkvs, T, dx);
      b.q.backward_input(dqs, n, pruned ? dx_places : dx, !pruned);
      if (pruned) scatter_add(dx_places, S, dx), scatter_add(d_places, S, d_residual);
      normalize_backward(dx, b.x1, b.r1, T, d, m.norm, d_residual);
    }
    if (drop) drop_out(*drop, EMBED, 0, item_word, all.seen, d_residual, T, d, d_residual);
    embed_backward(T);
  }
};

extern "C" {

int mechproc_lanes() { return LANES; }

int64_t mechproc_workspace(const Shape* shape, int64_t n_pos, int64_t n_places, int train) {
  Arena arena{nullptr};
  Batch batch{nullptr, nullptr, nullptr, nullptr, n_pos, n_places};
  Slice(*shape, batch, nullptr, nullptr, nullptr, train, arena);
  return int64_t(arena.used) + 64;
}

// Works on items[n_items] of the batch. Writes the summed loss (nats), `correct` [item][place] of these items, and, unless
// null, the gradient of the summed loss. Returns a Status.
int mechproc_slice(const Shape* shape, const float* weights, const Batch* batch, const Dropout* dropout,
    const int64_t* items, int64_t n_items, char* workspace,
                   double* loss, uint8_t* correct, float* gradient) {
  Arena arena{workspace + (64 - reinterpret_cast<uintptr_t>(workspace) % 64) % 64};
  Slice slice(*shape, *batch, dropout, weights, gradient, gradient != nullptr, arena);
  slice.pack();
  *loss = 0;
  for (int64_t first = 0; first < n_items; first += LANES) {
    long T, S;
    if (Status bad = slice.read_group(items + first, n_items - first, T, S)) return bad;
    if (!S) continue;
    slice.forward(T, S);
    *loss += slice.loss(S, correct);
    if (gradient) slice.backward(T, S);
  }
  if (gradient) slice.unpack();
  return OK;
}
}
