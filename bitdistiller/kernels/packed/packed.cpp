// Products with packed weights on a CPU (docs/performance.md). Vector types of GCC: the same source serves every
// processor; on x86-64 a look-up of 16 (AVX-512) or 8 (AVX2) levels is one instruction.

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif
typedef float Floats __attribute__((vector_size(LANES * 4)));
typedef uint32_t Words __attribute__((vector_size(LANES * 4)));
typedef int32_t Ints __attribute__((vector_size(LANES * 4)));

constexpr int CHUNK = 16;    // columns whose codes lie at one place in 16 consecutive words
constexpr int STRETCH = 64;  // columns that are sure to share a group

// What bitdistiller.kernels.packed.cpu.Matrix describes.
struct Matrix {
    const uint32_t *codes;
    const float *scale;
    const uint8_t *zero_point;  // or null
    const float *levels;        // 16, repeated where there are fewer
    int64_t rows, columns, group_size, scales_per_group;
};

template <typename V> static inline V load(const void *from) {
    V value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

// The values of a group's codes: (level - zero point) * scale, the second scale for levels that are not negative.
template <int BITS> static inline void make_table(const Matrix &w, int64_t group, Floats *table) {
    const float scale = w.scale[group * w.scales_per_group], zero = w.zero_point ? w.zero_point[group] : 0;
    for (int t = 0; t == 0 || t * LANES < (1 << BITS); t++) {
        const Floats level = load<Floats>(w.levels + t * LANES);
        table[t] = (level - zero) * scale;
        if (w.scales_per_group == 2) {
            const Floats second = level * w.scale[group * 2 + 1];
            table[t] = level < 0 ? table[t] : second;
        }
    }
}

// Only the lowest bits of an index count, so codes need no mask where the table repeats itself.
template <int BITS> static inline Floats look_up(const Floats *table, Words index) {
    const Floats low = __builtin_shuffle(table[0], (Ints)index);
    if constexpr ((1 << BITS) <= LANES) return low;
    const Floats high = __builtin_shuffle(table[1], (Ints)index);
    return (index & LANES) != 0 ? high : low;
}

// Calls visit(column, values of LANES consecutive columns, number of the chunk) for the columns of a row in lanes from `lane` on.
template <int BITS, typename Visit> static inline void walk(const Matrix &w, int64_t row, int lane, Visit visit) {
    constexpr int WORDS = BITS == 3 ? 3 : 1, PARTS = WORDS * 8 / BITS;
    const int64_t stretches = w.columns / STRETCH, per_group = w.group_size / STRETCH;
    const uint32_t *codes = w.codes + row * ((stretches + PARTS - 1) / PARTS * WORDS * CHUNK) + lane;
    int64_t group = row * (stretches / per_group), left = 0, column = lane;
    Floats table[2];
    for (int64_t done = 0; done < stretches; done += PARTS, codes += WORDS * CHUNK) {
        Words word[WORDS + 1];
        for (int i = 0; i < WORDS; i++) word[i] = load<Words>(codes + i * CHUNK);
#pragma GCC unroll 8
        for (int part = 0; part < PARTS; part++) {
            if (done + part >= stretches) break;
            if (left == 0) {
                make_table<BITS>(w, group++, table);
                left = per_group;
            }
            left--;
            const int at = 4 * BITS * part / 32, bit = 4 * BITS * part % 32;
            Words index = word[at] >> bit;
            if (bit + 4 * BITS > 32) index |= word[at + 1] << (32 - bit);
#pragma GCC unroll 4
            for (int c = 0; c < 4; c++, column += CHUNK) visit(column, look_up<BITS>(table, index >> (BITS * c)), c);
        }
    }
}

template <int BITS, int BATCH>
static void multiply(const Matrix &w, const float *x, float *out, int64_t first, int64_t last) {
    constexpr int SUMS = BATCH < 4 ? 4 / BATCH : 1;  // independent sums hide the latency of additions
    for (int64_t row = first; row < last; row++) {
        Floats sum[BATCH][SUMS] = {};
        for (int lane = 0; lane < CHUNK; lane += LANES)
            walk<BITS>(w, row, lane, [&](int64_t column, Floats value, int c) {
#pragma GCC unroll 8
                for (int i = 0; i < BATCH; i++) sum[i][c % SUMS] += value * load<Floats>(x + i * w.columns + column);
            });
        for (int i = 0; i < BATCH; i++) {
            for (int s = 1; s < SUMS; s++) sum[i][0] += sum[i][s];
            float total = 0;
            for (int l = 0; l < LANES; l++) total += sum[i][0][l];
            out[i * w.rows + row] = total;
        }
    }
}

template <int BITS>
static void multiply_all(const Matrix &w, const float *x, float *out, int64_t batch, int64_t first, int64_t last) {
    const auto some = [&](auto multiply, int64_t count) {
        for (; batch >= count; batch -= count, x += count * w.columns, out += count * w.rows)
            multiply(w, x, out, first, last);
    };
    some(multiply<BITS, 8>, 8), some(multiply<BITS, 4>, 4), some(multiply<BITS, 2>, 2), some(multiply<BITS, 1>, 1);
}

template <int BITS> static void expand(const Matrix &w, float *out, int64_t first, int64_t last) {
    for (int64_t row = first; row < last; row++)
        for (int lane = 0; lane < CHUNK; lane += LANES)
            walk<BITS>(w, row, lane, [&](int64_t column, Floats value, int) {
                std::memcpy(out + (row - first) * w.columns + column, &value, sizeof value);
            });
}

// x (batch, columns), out (batch, rows); rows first .. last - 1 of the weight.
extern "C" void packed_multiply(int bits, const Matrix *w, const float *x, float *out, int64_t batch, int64_t first,
                                int64_t last) {
    switch (bits) {
        case 1: return multiply_all<1>(*w, x, out, batch, first, last);
        case 2: return multiply_all<2>(*w, x, out, batch, first, last);
        case 3: return multiply_all<3>(*w, x, out, batch, first, last);
        case 4: return multiply_all<4>(*w, x, out, batch, first, last);
    }
}

// out (last - first, columns).
extern "C" void packed_expand(int bits, const Matrix *w, float *out, int64_t first, int64_t last) {
    switch (bits) {
        case 1: return expand<1>(*w, out, first, last);
        case 2: return expand<2>(*w, out, first, last);
        case 3: return expand<3>(*w, out, first, last);
        case 4: return expand<4>(*w, out, first, last);
    }
}
