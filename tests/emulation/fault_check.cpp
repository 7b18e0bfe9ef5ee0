// The emulated machine itself: each primitive does what it should, and each kind of fault, planted
// here, is found and named with its block and thread. Usage: fault_check
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "cuda/primitives.cuh"

namespace rnncells::gpu {
namespace {

int failures = 0, checks = 0;

struct Call {
  const float* in;
  float* out;
  uint32_t* counter;
};

struct Setup {
  std::vector<float> in = std::vector<float>(64), out = std::vector<float>(256, -1.0f);
  std::vector<uint32_t> counter = std::vector<uint32_t>(1);
  Setup() {
    for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i);
    machine().buffers.add(in.data(), in.size() * sizeof(float));
    machine().buffers.add(out.data(), out.size() * sizeof(float));
    machine().buffers.add(counter.data(), sizeof(uint32_t));
  }
  ~Setup() {
    machine().buffers.remove(in.data());
    machine().buffers.remove(out.data());
    machine().buffers.remove(counter.data());
  }
};

// Runs a kernel, which must end with this fault, or with none and these outputs.
void expect(const char* name, void (*kernel)(const Call&), const LaunchShape& shape,
            const std::string& fault, const std::vector<float>& outputs = {}) {
  Setup setup;
  const Call call{setup.in.data(), setup.out.data(), setup.counter.data()};
  const char* found = launch(kernel, call, shape, nullptr);
  bool good = fault.empty() ? found == nullptr : found != nullptr && fault == found;
  for (size_t i = 0; i < outputs.size() && fault.empty(); ++i) {
    good = good && setup.out[i] == outputs[i];
  }
  ++checks;
  if (good) return;
  ++failures;
  std::printf("FAILED: %s: expected '%s', got '%s'\n", name, fault.c_str(),
              found == nullptr ? "other numbers" : found);
}

Global<float> out_of(const Call& call) { return Global<float>(call.out); }
Global<const float> in_of(const Call& call) { return Global<const float>(call.in); }

void part_of_block(const Call&) {
  if (thread_index() < 40) block_barrier();
}
void part_of_warp(const Call&) {
  if (thread_index() != 5) warp_barrier();
}
void part_of_cluster(const Call&) {
  if (cluster_rank() == 0) cluster_barrier();
}
void part_of_grid(const Call& call) {
  if (block_index() != 1) group_barrier(Global<uint32_t>(call.counter), 3, 0);
}
constexpr int barrier_line = __LINE__ + 3;
void two_barriers(const Call&) {
  if (thread_index() % 2 == 0) {
    block_barrier();
  } else {
    block_barrier();
  }
}

void reads_beyond(const Call& call) {
  write(out_of(call), 0, read(in_of(call), thread_index() == 33 ? 64 : 0));
}
void writes_before(const Call& call) { write(out_of(call), -1, 0.0f); }
void reads_null(const Call&) { read(Global<const float>(nullptr), 0); }
void reads_odd_pack(const Call& call) { read_pack<4>(in_of(call), 2); }
void pack_beyond(const Call& call) { read_pack<4>(in_of(call), 64); }
void shared_beyond(const Call&) {
  SharedMemory memory;
  const Shared<float> first = memory.take<float>(32), second = memory.take<float>(32);
  write(second, thread_index(), 1.0f);
  write(first, thread_index() == 7 ? 32 : thread_index(), 1.0f);
}
void takes_too_much(const Call&) {
  SharedMemory memory;
  memory.take<float>(65);
}
void names_no_block(const Call&) {
  SharedMemory memory;
  write(at_rank(memory.take<float>(4), 2), 0, 1.0f);
}

void reads_unwritten(const Call&) {
  SharedMemory memory;
  const Shared<float> shared = memory.take<float>(64);
  if (thread_index() != 3) write(shared, thread_index(), 1.0f);
  block_barrier();
  read(shared, 0);
  if (thread_index() == 8) read(shared, 3);
}

// Each thread copies 4 floats, and reads its neighbour's.
template <bool Waits, bool Meets>
void copies(const Call& call) {
  SharedMemory memory;
  const Shared<float> shared = memory.take<float>(64);
  const int i = thread_index();
  copy_async(shared, i * 4, in_of(call), i * 4);
  copy_commit();
  if (Waits) copy_wait<0>();
  if (Meets) block_barrier();
  write(out_of(call), i, read(shared, (i + 1) % 16 * 4));
}
// The second group need not have landed when only the first is waited for.
void reads_second_group(const Call& call) {
  SharedMemory memory;
  const Shared<float> shared = memory.take<float>(8);
  copy_async(shared, 0, in_of(call), 0);
  copy_commit();
  copy_async(shared, 4, in_of(call), 4);
  copy_commit();
  copy_wait<1>();
  write(out_of(call), 0, read(shared, 1));
  write(out_of(call), 1, read(shared, 5));
}

template <bool Meets>
void passes_on(const Call& call) {
  SharedMemory memory;
  const Shared<float> shared = memory.take<float>(64);
  const int i = thread_index();
  write(shared, i, static_cast<float>(i));
  if (Meets) block_barrier();
  write(out_of(call), i, read(shared, (i + 40) % 64));
}
// Overwrites what others may still read.
template <bool Meets>
void writes_again(const Call& call) {
  SharedMemory memory;
  const Shared<float> shared = memory.take<float>(64);
  const int i = thread_index();
  write(shared, i, static_cast<float>(i));
  block_barrier();
  write(out_of(call), i, read(shared, 63 - i));
  if (Meets) block_barrier();
  write(shared, i, 0.0f);
}
// The same, where the one who reads comes first.
void writes_what_is_read(const Call& call) {
  SharedMemory memory;
  const Shared<float> shared = memory.take<float>(64);
  const int i = thread_index();
  write(shared, i, 1.0f);
  block_barrier();
  write(out_of(call), i, read(shared, i / 2));
  if (i == 40) write(shared, 3, 0.0f);
}
template <bool Meets>
void within_warp(const Call& call) {
  SharedMemory memory;
  const Shared<float> shared = memory.take<float>(32);
  write(shared, thread_index(), static_cast<float>(thread_index()));
  if (Meets) warp_barrier();
  write(out_of(call), thread_index(), read(shared, 31 - thread_index()));
}
template <bool Meets>
void to_neighbour(const Call& call) {
  SharedMemory memory;
  const Shared<float> shared = memory.take<float>(4);
  const int rank = cluster_rank();
  if (thread_index() == 0) {
    write(at_rank(shared, 1 - rank), 0, static_cast<float>(10 + rank));
  }
  if (Meets) cluster_barrier();
  if (!Meets) block_barrier();
  if (thread_index() == 1) write(out_of(call), block_index(), read(shared, 0));
}

void through_memory(const Call& call) {
  const Global<uint32_t> counter(call.counter);
  for (int round = 0; round < 3; ++round) {
    if (thread_index() == 0) {
      write(out_of(call), round * 3 + block_index(), static_cast<float>(round + block_index()));
    }
    group_barrier(counter, 3, round);
    read(out_of(call), round * 3 + (block_index() + 1) % 3);
  }
  if (block_index() == 0 && thread_index() == 0) write(out_of(call), 9, read(out_of(call), 8));
}
void shuffles(const Call& call) {
  write(out_of(call), thread_index(), shuffle_down(static_cast<float>(thread_index()), 4));
}

template <class E>
struct TileCall {
  const float *a, *b;  // [16, depth], [depth, 8]
  float* sums;         // [16, 8]
};
// The fragments as the PTX manual draws them.
template <class E>
void multiplies(const TileCall<E>& call) {
  constexpr int each = 4 / sizeof(E), depth = 8 * each;
  const Global<const float> a(call.a), b(call.b);
  const Global<float> sums(call.sums);
  const int group = thread_index() / 4, in_group = thread_index() % 4;
  const auto word = [&](auto value) {
    uint32_t bits = 0;
    for (int half = 0; half < each; ++half) {
      E element;
      narrow(value(half), element);
      bits |= static_cast<uint32_t>(element.bits) << (16 * half);
    }
    return bits;
  };
  uint32_t left[4], right[2];
  for (int i = 0; i < 4; ++i) {
    const int row = group + i % 2 * 8, k = in_group * each + i / 2 * 4 * each;
    left[i] = word([&](int half) { return read(a, row * depth + k + half); });
  }
  for (int i = 0; i < 2; ++i) {
    const int k = in_group * each + i * 4 * each;
    right[i] = word([&](int half) { return read(b, (k + half) * 8 + group); });
  }
  float total[4] = {1, 1, 1, 1};
  multiply_tile(total, left, right, E());
  for (int i = 0; i < 4; ++i) {
    write(sums, (group + i / 2 * 8) * 8 + in_group * 2 + i % 2, total[i]);
  }
}
template <class E>
void expect_product(const char* name) {
  constexpr int depth = 32 / sizeof(E);
  std::vector<float> a(16 * depth), b(depth * 8), sums(16 * 8);
  for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i * 7 % 31) - 15;
  for (size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(i * 5 % 29) - 14;
  machine().buffers.add(a.data(), a.size() * sizeof(float));
  machine().buffers.add(b.data(), b.size() * sizeof(float));
  machine().buffers.add(sums.data(), sums.size() * sizeof(float));
  const TileCall<E> call{a.data(), b.data(), sums.data()};
  const char* fault = launch(&multiplies<E>, call, {1, 32}, nullptr);
  bool good = fault == nullptr;
  for (int i = 0; i < 16 * 8; ++i) {
    float expected = 1;
    for (int k = 0; k < depth; ++k) expected += a[i / 8 * depth + k] * b[k * 8 + i % 8];
    good = good && sums[i] == expected;
  }
  ++checks;
  failures += !good;
  if (!good) std::printf("FAILED: product of %s: %s\n", name, fault == nullptr ? "" : fault);
}

// Every 16-bit number survives the way there and back, and what lies between two neighbours goes to
// the nearer one, or to the even one.
template <class E>
void expect_rounding(const char* name, uint32_t infinity) {
  bool good = true;
  for (uint32_t bits = 0; bits + 1 < infinity; ++bits) {
    const E low{static_cast<uint16_t>(bits)}, high{static_cast<uint16_t>(bits + 1)};
    const double a = widen(low), b = widen(high);
    const auto rounds = [&](double value, uint32_t expected) {
      E result, negative;
      narrow(static_cast<float>(value), result);
      narrow(static_cast<float>(-value), negative);
      good = good && result.bits == expected && negative.bits == (expected | 0x8000);
    };
    rounds(a, bits);
    rounds(a + (b - a) * 0.25, bits);
    rounds(a + (b - a) * 0.5, bits + bits % 2);
    rounds(a + (b - a) * 0.75, bits + 1);
  }
  E result;
  narrow(INFINITY, result);
  good = good && result.bits == infinity && std::isinf(widen(result));
  narrow(NAN, result);
  good = good && std::isnan(widen(result));
  ++checks;
  failures += !good;
  if (!good) std::printf("FAILED: rounding to %s\n", name);
}

void run() {
  const LaunchShape block{1, 64, 256}, warp{1, 32, 128};
  LaunchShape pair{4, 64, 256};
  pair.cluster = 2;
  LaunchShape grid{3, 64, 256};
  grid.cooperative = true;
  expect("part_of_block", part_of_block, {2, 64},
         "block 0 thread 0 waits at a block barrier that block 0 thread 40 never reaches");
  expect("part_of_warp", part_of_warp, block,
         "block 0 thread 0 waits at a warp barrier that block 0 thread 5 never reaches");
  expect("part_of_cluster", part_of_cluster, pair,
         "block 0 thread 0 waits at a cluster barrier that block 1 thread 0 never reaches");
  expect("part_of_grid", part_of_grid, grid,
         "block 0 thread 0 waits at a group barrier that block 1 thread 0 never reaches");
  expect("two_barriers", two_barriers, block,
         "block 0 thread 1 reaches the block barrier of line " + std::to_string(barrier_line + 2) +
             " while others wait at that of line " + std::to_string(barrier_line));
  expect("reads_beyond", reads_beyond, block,
         "block 0 thread 33 reads outside of a buffer: element 64 of 64");
  expect("writes_before", writes_before, {1, 1},
         "block 0 thread 0 writes outside of a buffer: element -1 of 256");
  expect("reads_null", reads_null, {1, 1},
         "block 0 thread 0 reads outside of a buffer: element 0 of 0");
  expect("reads_odd_pack", reads_odd_pack, {1, 1},
         "block 0 thread 0 reads a pack that is not aligned");
  expect("pack_beyond", pack_beyond, {1, 1},
         "block 0 thread 0 reads outside of a buffer: element 64 of 64");
  expect("shared_beyond", shared_beyond, {1, 32, 256},
         "block 0 thread 7 writes outside of a shared array: element 32 of 32");
  expect("takes_too_much", takes_too_much, {1, 1, 256},
         "block 0 thread 0 takes more shared memory than the launch gave");
  expect("launches_too_large", takes_too_much, {1, 1, 1 << 20},
         "the launch asks for too much shared memory");
  expect("names_no_block", names_no_block, pair, "block 0 thread 0 names no block of the cluster");
  expect("reads_unwritten", reads_unwritten, block,
         "block 0 thread 8 reads shared memory that nothing wrote");
  std::vector<float> next(16);
  for (int i = 0; i < 16; ++i) next[i] = static_cast<float>((i + 1) % 16 * 4);
  expect("copies", copies<true, true>, {1, 16, 256}, "", next);
  expect("copies without waiting", copies<false, true>, {1, 16, 256},
         "block 0 thread 15 reads shared memory before the wait of its asynchronous copy");
  expect("copies without meeting", copies<true, false>, {1, 16, 256},
         "block 0 thread 0 reads shared memory that nothing wrote");
  expect("reads_second_group", reads_second_group, {1, 1, 32},
         "block 0 thread 0 reads shared memory before the wait of its asynchronous copy");
  expect("passes_on", passes_on<true>, block, "", {40, 41});
  expect("passes_on without meeting", passes_on<false>, block,
         "block 0 thread 0 reads shared memory that nothing wrote");
  expect("writes_again", writes_again<true>, block, "", {63, 62});
  expect("writes_again without meeting", writes_again<false>, block,
         "block 0 thread 0 reads what another thread wrote, with no barrier");
  expect("writes_what_is_read", writes_what_is_read, block,
         "block 0 thread 40 writes what another thread reads, with no barrier");
  expect("within_warp", within_warp<true>, warp, "", {31, 30});
  expect("within_warp without meeting", within_warp<false>, warp,
         "block 0 thread 0 reads shared memory that nothing wrote");
  expect("to_neighbour", to_neighbour<true>, pair, "", {11, 10, 11, 10});
  expect("to_neighbour without meeting", to_neighbour<false>, pair,
         "block 0 thread 1 reads what another thread wrote, with no barrier");
  expect("through_memory", through_memory, grid, "", {0, 1, 2, 1, 2, 3, 2, 3, 4, 4});
  expect("shuffles", shuffles, {1, 30}, "", {4, 5, 6, 7});
  expect_product<Float16>("float16");
  expect_product<BFloat16>("bfloat16");
  expect_product<TensorFloat>("TF32");
  expect_rounding<Float16>("float16", 0x7c00);
  expect_rounding<BFloat16>("bfloat16", 0x7f80);
}

}  // namespace
}  // namespace rnncells::gpu

int main() {
  using namespace rnncells::gpu;
  run();
  std::printf("%d checks, %d failures\n", checks, failures);
  return failures == 0 && checks > 0 ? 0 : 1;
}
