// CUDA C for g++: the threads of a block are fibers that take turns between barriers, blocks run
// one after another.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <csetjmp>
#include <cstring>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <ucontext.h>
#include <vector>

#include "cuda_fp16.h"

#define __global__
#define __device__ inline
#define __forceinline__
#define __restrict__
#define __shared__ static
#define __launch_bounds__(...)

using std::max;
using std::min;

struct dim3 {
    unsigned x, y, z;
};
static dim3 threadIdx, blockIdx, blockDim, gridDim;

// Not inlined, so that they are never fused.
__attribute__((noinline)) static float __fmul_rn(float a, float b) { return a * b; }
__attribute__((noinline)) static float __fadd_rn(float a, float b) { return a + b; }
inline float __int_as_float(int bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
inline long long clock64() {
    static long long cycles;
    return cycles += 1000;
}
inline void __threadfence() {}
inline int atomicAdd(int *address, int value) {
    int before = *address;
    *address += value;
    return before;
}

// What float16 is in CuPy's elementwise kernels.
struct Half {
    __half value;
    Half() = default;
    Half(float number) : value(__float2half_rn(number)) {}
    operator float() const { return __half2float(value); }
    Half &operator+=(float number) { return *this = *this + number; }
};

struct Fiber {
    ucontext_t context;
    jmp_buf place;
    bool begun, done;
    std::vector<char> stack;
};
static std::vector<Fiber> fibers;
static jmp_buf scheduler;
static size_t current;
static const std::function<void()> *body;

static void switch_to_scheduler() {
    if (!_setjmp(fibers[current].place))
        _longjmp(scheduler, 1);
}
static void run_forever() {
    for (;;) {
        (*body)();
        fibers[current].done = true;
        switch_to_scheduler();
    }
}
inline void __syncthreads() {
    switch_to_scheduler();
}
static void resume(size_t i) {
    current = i;
    threadIdx = {unsigned(i % blockDim.x), unsigned(i / blockDim.x % blockDim.y),
                 unsigned(i / blockDim.x / blockDim.y)};
    Fiber &fiber = fibers[i];
    if (_setjmp(scheduler))
        return;
    if (fiber.begun)
        _longjmp(fiber.place, 1);
    fiber.begun = true;
    fiber.stack.resize(1 << 16);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, run_forever, 0);
    setcontext(&fiber.context);
}
static void run_block(bool has_barriers) {
    size_t threads = size_t(blockDim.x) * blockDim.y * blockDim.z;
    if (!has_barriers) {
        for (size_t i = 0; i < threads; ++i) {
            threadIdx = {unsigned(i % blockDim.x), unsigned(i / blockDim.x % blockDim.y),
                         unsigned(i / blockDim.x / blockDim.y)};
            (*body)();
        }
        return;
    }
    if (fibers.size() < threads)
        fibers.resize(threads);
    for (size_t i = 0; i < threads; ++i)
        fibers[i].done = false;
    for (bool all_done = false; !all_done;) {
        all_done = true;
        for (size_t i = 0; i < threads; ++i)
            if (!fibers[i].done) {
                resume(i);
                all_done &= fibers[i].done;
            }
    }
}
static void run_grid(const unsigned *grid, const unsigned *block, bool has_barriers,
                     const std::function<void()> &kernel) {
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    body = &kernel;
    for (unsigned z = 0; z < grid[2]; ++z)
        for (unsigned y = 0; y < grid[1]; ++y)
            for (unsigned x = 0; x < grid[0]; ++x) {
                blockIdx = {x, y, z};
                run_block(has_barriers);
            }
}
