// Runs every cell of the CPU engine, in one instruction set, against plain scalar loops over the
// same cell headers. No torch. Built with the address and undefined-behaviour sanitizers, every
// buffer exactly as large as it must be. Usage: engine_check baseline|avx2|avx512
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <thread>

#include "cpu/isa.h"
#include "scalar_layer.h"

namespace rnncells {
namespace {

using scalar::Numbers;
using scalar::Problem;
using scalar::Result;

std::mt19937 generator(7);

Numbers draw(int64_t count, double scale = 1.0) {
  std::uniform_real_distribution<double> uniform(-scale, scale);
  Numbers numbers(count);
  for (double& number : numbers) number = uniform(generator);
  return numbers;
}

// Splits the work over real threads, unevenly, so that the sanitizer sees each piece.
void run_on_threads(int64_t n, Pool::Body body, void* context) {
  const int64_t middle = (n + 2) / 3;
  std::thread first([&] { body(0, middle, context); });
  if (middle < n) body(middle, n, context);
  first.join();
}

// 16-bit values, rounded here as nobody needs to round them fast.
float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
double number(float value) { return value; }
double number(double value) { return value; }
double number(BFloat16 value) { return from_bits(uint32_t{value.bits} << 16); }
double number(Float16 value) {
  const int exponent = value.bits >> 10 & 31, fraction = value.bits & 1023;
  const double size =
      exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return value.bits & 0x8000 ? -size : size;  // no infinity, no NaN: not in these tests
}
template <class T>
T stored(double value) {
  if constexpr (sizeof(T) > 2) {
    return static_cast<T>(value);
  } else {  // the nearest of the 65536; the larger ones are far from these tests' values
    T best{};
    for (uint32_t bits = value < 0 ? 0x8000 : 0, step = 0x4000; step > 0; step /= 2) {
      T higher{static_cast<uint16_t>(bits + step)};
      if (std::abs(number(higher)) <= std::abs(value)) bits += step;
      best.bits = static_cast<uint16_t>(bits);
    }
    const T next{static_cast<uint16_t>(best.bits + 1)};
    return std::abs(number(next) - value) < std::abs(number(best) - value) ? next : best;
  }
}

template <class T>
std::vector<T> cast(const Numbers& numbers) {
  std::vector<T> result;
  for (const double value : numbers) result.push_back(stored<T>(value));
  return result;
}
template <class T>
Numbers back(const std::vector<T>& values) {
  Numbers result;
  for (const T value : values) result.push_back(number(value));
  return result;
}
template <class T>
bool same(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         (a.empty() || !std::memcmp(a.data(), b.data(), a.size() * sizeof(T)));
}

template <class T>
struct Buffers {
  std::vector<T> x, w_ih, w_hh, b_ih, b_hh, w_hr, y, reserve, y_gradient;
  std::vector<T> dx, dw_ih, dw_hh, db_ih, db_hh, dw_hr;
  std::vector<std::vector<T>> states, last, last_gradient, dstates;
};

// Packed weights and a reserve of the states alone change no bit.
template <class T>
void check_less_memory(const LayerFunctions<T>& functions, ForwardCall<T> f, BackwardCall<T> g,
                       Buffers<T>& b) {
  const std::vector<T> y = b.y, dx = b.dx, dw_ih = b.dw_ih, dw_hh = b.dw_hh, db_hh = b.db_hh;
  const std::vector<T> dw_hr = b.dw_hr, dh = b.dstates[0];
  const bool projected = f.weights.projection != nullptr;
  std::vector<Compute<T>> packed(functions.packed_elements(f.sizes, projected) + 16);
  const auto address = reinterpret_cast<uintptr_t>(packed.data());
  void* aligned = packed.data() + (64 - address % 64) % 64 / sizeof(Compute<T>);
  functions.pack(f.sizes, f.weights, aligned);
  std::vector<T> states(
      b.reserve.empty() ? 0 : (b.last.size() - 1) * y.size() / f.sizes.outputs * f.sizes.units);
  f.packed = aligned;
  f.recompute = g.recompute = true;
  f.reserve = states.empty() ? nullptr : states.data();
  g.reserve = f.reserve;
  functions.forward(f);
  functions.backward(g);
  if (!same(y, b.y) || !same(dx, b.dx) || !same(dw_ih, b.dw_ih) || !same(dw_hh, b.dw_hh) ||
      !same(db_hh, b.db_hh) || !same(dw_hr, b.dw_hr) || !same(dh, b.dstates[0])) {
    std::printf("FAILED: less memory gives other results\n");
    std::exit(1);
  }
}

template <class T>
Result run_engine(const CellEngine& engine, const Problem& p, bool packed, bool threads,
                  Regime regime, bool streams = false) {
  const auto [steps, batch, inputs, units, outputs] = p.size;
  const int64_t gates = engine.facts.gates;
  const auto rows = static_cast<int64_t>(p.x.size()) / inputs;
  Buffers<T> b;
  b.x = cast<T>(p.x);
  b.w_ih = cast<T>(p.w_ih);
  b.w_hh = cast<T>(p.w_hh);
  b.b_ih = cast<T>(p.b_ih);
  b.b_hh = cast<T>(p.b_hh);
  b.w_hr = cast<T>(p.w_hr);
  b.y_gradient = cast<T>(p.y_gradient);
  b.y.resize(rows * outputs);
  b.reserve.resize(rows * units * (engine.facts.reserve_slots + p.projected));
  b.dx.resize(p.x.size());
  b.dw_ih.resize(gates * units * inputs);
  b.dw_hh.resize(gates * units * outputs);
  b.db_ih.resize(gates * units);
  b.db_hh.resize(gates * units);
  b.dw_hr.resize(p.w_hr.size());
  const Pool pool{threads ? run_on_threads : nullptr, threads ? 2 : 1, 0};
  ForwardCall<T> f{};
  BackwardCall<T> g{};
  f.weights.input = b.w_ih.data();
  f.weights.input_row_stride = inputs;
  f.weights.recurrent = b.w_hh.data();
  f.weights.recurrent_row_stride = outputs;
  f.weights.input_column_stride = f.weights.recurrent_column_stride = 1;
  if (p.bias) {
    f.weights.input_bias = b.b_ih.data();
    f.weights.recurrent_bias = b.b_hh.data();
    f.weights.input_bias_stride = f.weights.recurrent_bias_stride = 1;
  }
  if (p.projected) {
    f.weights.projection = b.w_hr.data();
    f.weights.projection_row_stride = units;
    f.weights.projection_column_stride = 1;
    g.projection_gradient = b.dw_hr.data();
  }
  g.weights = f.weights;
  f.sizes = g.sizes = p.size;
  f.regime = g.regime = regime;
  f.row_counts = g.row_counts = packed ? p.counts.data() : nullptr;
  f.reverse = g.reverse = p.reverse;
  f.x = g.x = b.x.data();
  f.x_step_stride = g.x_step_stride = packed ? 0 : batch * inputs;
  f.x_batch_stride = g.x_batch_stride = inputs;
  f.x_column_stride = g.x_column_stride = 1;
  f.y = b.y.data();
  g.y = b.y.data();
  f.y_step_stride = g.y_step_stride = batch * outputs;
  f.y_batch_stride = g.y_batch_stride = outputs;
  f.reserve = b.reserve.empty() ? nullptr : b.reserve.data();
  g.reserve = f.reserve;
  f.pool = g.pool = pool;
  for (int i = 0; i < engine.facts.states; ++i) {
    const int64_t size = batch * (i == 0 ? outputs : units);
    b.states.push_back(cast<T>(p.states[i]));
    b.last.emplace_back(size);
    b.last_gradient.push_back(cast<T>(p.last_gradient[i]));
    b.dstates.emplace_back(size);
    f.initial[i] = g.initial[i] = p.initial ? b.states[i].data() : nullptr;
    f.last[i] = b.last[i].data();
    g.last_gradient[i] = b.last_gradient[i].data();
    g.initial_gradient[i] = b.dstates[i].data();
  }
  g.y_gradient = b.y_gradient.data();
  g.y_gradient_step_stride = packed ? 0 : batch * outputs;
  g.y_gradient_batch_stride = outputs;
  g.x_gradient = b.dx.data();
  g.input_weight_gradient = b.dw_ih.data();
  g.recurrent_weight_gradient = b.dw_hh.data();
  g.input_bias_gradient = b.db_ih.data();
  g.recurrent_bias_gradient = b.db_hh.data();
  engine.functions<T>().forward(f);
  const std::vector<T> kept = b.y, reserve = b.reserve;
  engine.functions<T>().backward(g);
  if (!same(reserve, b.reserve)) std::printf("FAILED: backward wrote the reserve\n"), std::exit(1);
  f.reserve = nullptr;  // inference gives the same bits
  engine.functions<T>().forward(f);
  if (!same(kept, b.y)) std::printf("FAILED: inference differs from training\n"), std::exit(1);
  if (regime == Regime::units) check_less_memory(engine.functions<T>(), f, g, b);
  Result r;
  r.y = back(b.y);
  if (streams) {
    f.regime = Regime::depth;
    engine.functions<T>().forward(f);
    r.streamed = back(b.y);
  }
  r.dx = back(b.dx);
  r.dw_ih = back(b.dw_ih);
  r.dw_hh = back(b.dw_hh);
  r.db_ih = back(b.db_ih);
  r.db_hh = back(b.db_hh);
  r.dw_hr = back(b.dw_hr);
  for (const auto& v : b.last) r.last.push_back(back(v));
  for (const auto& v : b.dstates) r.dstates.push_back(back(v));
  return r;
}

double least_scale = 1e-30;  // what a difference is measured by at least

double difference(const Numbers& a, const Numbers& b) {
  double most = 0, scale = least_scale;
  for (size_t i = 0; i < a.size(); ++i) {
    most = std::max(most, std::abs(a[i] - b[i]));
    scale = std::max(scale, std::abs(b[i]));
  }
  return most / scale;
}

double difference(const Result& a, const Result& b) {
  double most =
      std::max({difference(a.y, b.y), difference(a.dx, b.dx), difference(a.dw_ih, b.dw_ih),
                difference(a.dw_hh, b.dw_hh), difference(a.db_ih, b.db_ih),
                difference(a.db_hh, b.db_hh), difference(a.dw_hr, b.dw_hr)});
  for (size_t i = 0; i < a.last.size(); ++i) {
    most =
        std::max({most, difference(a.last[i], b.last[i]), difference(a.dstates[i], b.dstates[i])});
  }
  return most;
}

int failures = 0, checks = 0;

// Rounding grows with the number of rows summed (at most 700) and of steps (at most 300): some
// hundreds of units in the last place at the worst; in 16 bits, which round h and the results
// alone, some tens.
template <class T>
bool passes(const CellEngine& engine, const Problem& p, bool packed, bool threads,
            const Result& expected, double limit) {
  // Where all terms of a sum cancel, rounding to 16 bits is seen against the terms, of order one.
  least_scale = sizeof(T) == 2 ? 1 : 1e-30;
  double found = difference(run_engine<T>(engine, p, packed, threads, Regime::units), expected);
  ++checks;
  if (!packed && !p.projected && !engine.facts.units_only) {
    const Result other = run_engine<T>(engine, p, packed, threads, Regime::batch, true);
    found = std::max({found, difference(other, expected), difference(other.streamed, expected.y)});
    ++checks;
  }
  if (found < limit) return true;
  ++failures;
  std::printf(
      "FAILED: %s T=%d B=%d I=%d H=%d P=%d reverse=%d bias=%d initial=%d packed=%d: %.3g "
      "in %d bits, limit %.3g\n",
      engine.facts.name, int(p.size.steps), int(p.size.batch), int(p.size.inputs),
      int(p.size.units), int(p.size.outputs), p.reverse, p.bias, p.initial, packed, found,
      int(8 * sizeof(T)), limit);
  return false;
}

// Values that every type can hold, so that all compute on the same ones.
Numbers draw_bfloat16(int64_t count, double scale = 1.0) {
  return back(cast<BFloat16>(draw(count, scale)));
}

// h of an sLSTM does not know m, by which c and n are scaled; theirs jump in slope where m does.
void leave_smooth(Problem& p) {
  for (size_t i = 1; i < p.last_gradient.size(); ++i) {
    std::fill(p.last_gradient[i].begin(), p.last_gradient[i].end(), 0.0);
  }
}

template <class Cell>
void check_cell(const CellEngine& engine) {
  const int64_t shapes[][5] = {{1, 1, 1, 1, 0},    {3, 2, 1, 5, 2},    {2, 7, 33, 15, 0},
                               {5, 13, 3, 17, 16}, {4, 5, 40, 33, 0},  {2, 3, 65, 70, 69},
                               {90, 8, 2, 9, 0},   {3, 40, 31, 16, 5}, {2, 1, 7, 130, 33},
                               {300, 1, 34, 4, 0}, {140, 5, 33, 20, 7}};
  for (const auto& s : shapes) {
    for (int flags = 0; flags < 16; ++flags) {
      Problem p;
      p.reverse = flags & 1;
      p.bias = flags & 2;
      p.initial = flags & 4;
      const bool packed = flags & 8;
      p.projected = s[4] > 0 && engine.facts.projects && p.reverse == p.bias;
      p.size = {s[0], s[1], s[2], s[3], p.projected ? s[4] : s[3]};
      p.counts.assign(s[0], s[1]);
      for (int64_t t = 1; packed && t < s[0]; ++t) {
        p.counts[t] = p.counts[t - 1] - (p.counts[t - 1] > 1 && generator() % 3 == 0);
      }
      const int64_t all = std::accumulate(p.counts.begin(), p.counts.end(), int64_t{0});
      const int64_t rows = Cell::gates * s[3];
      p.x = draw_bfloat16(all * s[2]);
      p.w_ih = draw_bfloat16(rows * s[2], 1 / std::sqrt(double(s[3])));
      p.w_hh = draw_bfloat16(rows * p.size.outputs, 1 / std::sqrt(double(s[3])));
      p.b_ih = draw_bfloat16(rows);
      p.b_hh = draw_bfloat16(rows);
      if (p.projected) p.w_hr = draw_bfloat16(s[4] * s[3], 1 / std::sqrt(double(s[3])));
      p.y_gradient = draw_bfloat16(all * p.size.outputs);
      for (int i = 0; i < Cell::states; ++i) {
        const int64_t size = s[1] * (i == 0 ? p.size.outputs : s[3]);
        p.states.push_back(draw_bfloat16(size));
        p.last_gradient.push_back(draw_bfloat16(size));
      }
      if (std::is_same_v<Cell, Slstm>) {  // a sum of exponentials
        for (double& n : p.states[2]) n = 0.5 + std::abs(n);
      }
      const Result expected = scalar::Layer<Cell>(p).run();
      const bool threads = flags & 1;
      passes<double>(engine, p, packed, threads, expected, 1000 * 0x1p-52);
      passes<float>(engine, p, packed, !threads, expected, 1000 * 0x1p-23);
      // A rounding that moves a unit of ReLU over its kink changes a gradient by all of its value.
      const double kinks = std::is_same_v<Cell, RnnRelu> ? 1000 : 1;
      const bool jumps = std::is_same_v<Cell, Slstm>;
      if (jumps) leave_smooth(p);
      const Result smooth = jumps ? scalar::Layer<Cell>(p).run() : expected;
      passes<Float16>(engine, p, packed, threads, smooth, kinks * 50 * 0x1p-10);
      passes<BFloat16>(engine, p, packed, !threads, smooth, kinks * 50 * 0x1p-7);
    }
  }
}

// Those that take Terms are tested from Python.
template <class... Cell>
void check_cells(CellList<Cell...>) {
  const auto check = [](auto cell) {
    using One = decltype(cell);
    for (const CellEngine& engine : cpu_engine()) {
      if constexpr (!One::open) {
        if (std::string(engine.facts.name) == One::name) check_cell<One>(engine);
      }
    }
  };
  (check(Cell()), ...);
}

// In units in the last place of the result; where it is 1 - exp, of 1.
template <class T>
void check_function(const char* name, T (*ours)(T), long double (*exact)(long double), T from,
                    T to) {
  long double most = 0;
  for (int i = 0; i <= 200000; ++i) {
    const T x = from + (to - from) * static_cast<T>(i) / 200000;
    const long double right = exact(x);
    const T near = std::abs(static_cast<T>(right));
    const long double place = std::nextafter(near, std::numeric_limits<T>::infinity()) - near;
    most = std::max(most, std::abs(ours(x) - right) / place);
  }
  ++checks;
  if (most <= 3) return;
  ++failures;
  std::printf("FAILED: %s is off by %.2Lf units in the last place\n", name, most);
}
template <class T>
void check_functions() {
  check_function<T>("exp", exp<T>, std::exp, -80, 0);
  check_function<T>("exp near 0", exp<T>, std::exp, T(-1e-3), 0);
  check_function<T>("log1p", log1p<T>, std::log1p, 0, 1);
  check_function<T>("log1p near 0", log1p<T>, std::log1p, 0, T(1e-3));
  check_function<T>("tanh", tanh<T>, std::tanh, -9, 9);
  const auto sigmoid_exactly = [](long double x) { return 1 / (1 + std::exp(-x)); };
  check_function<T>("sigmoid", sigmoid<T>, sigmoid_exactly, -20, 20);
}

}  // namespace
}  // namespace rnncells

int main(int, char** arguments) {
  rnncells::set_isa(arguments[1]);
  rnncells::check_functions<float>();
  rnncells::check_functions<double>();
  rnncells::check_cells(rnncells::AllCells());
  rnncells::check_cells(rnncells::OtherCells());
  std::printf("%s: %d checks, %d failures\n", arguments[1], rnncells::checks, rnncells::failures);
  return rnncells::failures == 0 ? 0 : 1;
}
