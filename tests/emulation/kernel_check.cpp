// Runs every kernel of the CUDA engine on the emulated machine, for every cell and type, against
// plain scalar loops in double over the same cell headers. Usage: kernel_check TYPE quick|full
#include <cmath>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <random>

#include "layer.h"

namespace rnncells::emulation {
namespace {

int failures = 0, checks = 0;
std::mt19937 generator(7);

// Values that every type can hold, so that all compute on the same ones.
Numbers draw(int64_t count, double scale = 1.0) {
  std::uniform_real_distribution<double> uniform(-scale, scale);
  Numbers numbers(count);
  for (double& number : numbers) {
    BFloat16 stored;
    gpu::narrow(static_cast<float>(uniform(generator)), stored);
    number = gpu::widen(stored);
  }
  return numbers;
}

double difference(const Numbers& a, const Numbers& b, double least_scale) {
  if (a.size() != b.size()) return INFINITY;
  double most = 0, scale = least_scale;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!(std::abs(a[i] - b[i]) <= most)) most = std::abs(a[i] - b[i]);  // NaN stays
    scale = std::max(scale, std::abs(b[i]));
  }
  return most / scale;
}

struct Worst {
  double value = 0;
  const char* of = "";
  void add(double found, const char* name) {
    if (!(found <= value)) value = found, of = name;
  }
};

Worst compare(const Result& a, const Result& b, double least_scale) {
  Worst worst;
  const auto add = [&](const Numbers& found, const Numbers& expected, const char* name) {
    worst.add(difference(found, expected, least_scale), name);
  };
  add(a.y, b.y, "y");
  add(a.dx, b.dx, "dx");
  add(a.dw_ih, b.dw_ih, "dw_ih");
  add(a.dw_hh, b.dw_hh, "dw_hh");
  add(a.db_ih, b.db_ih, "db_ih");
  add(a.db_hh, b.db_hh, "db_hh");
  add(a.dw_hr, b.dw_hr, "dw_hr");
  for (size_t i = 0; i < b.last.size(); ++i) add(a.last[i], b.last[i], "last");
  for (size_t i = 0; i < b.dstates.size(); ++i) add(a.dstates[i], b.dstates[i], "dstates");
  return worst;
}

struct Shape {
  int64_t steps, batch, inputs, units, outputs;
};

template <class Cell>
Problem draw_problem(const Shape& s, bool projected, bool ragged, int flags, const Way& way) {
  Problem p;
  p.reverse = flags & 1;
  p.bias = flags & 2;
  p.initial = flags & 4;
  p.projected = projected;
  p.size = {s.steps, s.batch, s.inputs, s.units, projected ? s.outputs : s.units};
  p.counts.assign(s.steps, s.batch);
  for (int64_t t = 1; ragged && t < s.steps; ++t) {
    p.counts[t] = p.counts[t - 1] - (p.counts[t - 1] > 1 && generator() % 2 == 0);
  }
  const int64_t all = std::accumulate(p.counts.begin(), p.counts.end(), int64_t{0});
  const int64_t rows = Cell::gates * s.units;
  const double scale = 1 / std::sqrt(double(s.units));
  p.x = draw(all * s.inputs);
  p.w_ih = draw(rows * s.inputs, scale);
  p.w_hh = draw(rows * p.size.outputs, scale);
  p.b_ih = draw(rows);
  p.b_hh = draw(rows);
  if (projected) p.w_hr = draw(s.outputs * s.units, scale);
  p.y_gradient = draw(all * p.size.outputs, way.y_gradient ? 1 : 0);
  for (int i = 0; i < Cell::states; ++i) {
    const int64_t size = s.batch * (i == 0 ? p.size.outputs : s.units);
    p.states.push_back(draw(size));
    p.last_gradient.push_back(draw(size, way.last_gradient ? 1 : 0));
  }
  return p;
}

// Rounding grows with the number of terms of a sum (at most some hundreds here) and of steps (at
// most ten): a hundred units in the last place at the worst. 16-bit types round every h, share
// gradient and kept value, and TF32 every factor to 11 bits.
template <class Cell, class T>
double limit(gpu::Operand operand) {
  const double unit = std::is_same_v<T, double>          ? 0x1p-52
                      : operand == gpu::Operand::singles ? 0x1p-23
                      : std::is_same_v<T, BFloat16>      ? 0x1p-8
                                                         : 0x1p-11;
  const bool rounded = unit >= 0x1p-11;
  // A rounding that moves a unit of ReLU over its kink changes a gradient by all of its value.
  const double kinks = std::is_same_v<Cell, RnnRelu> && rounded ? 100 : 1;
  return (rounded ? 16 : 100) * kinks * unit;
}

template <class Cell, class T>
void check(int cell, const Shape& shape, bool projected, bool ragged, int flags, const Way& way) {
  const Problem p = draw_problem<Cell>(shape, projected, ragged, flags, way);
  const Result expected = scalar::Layer<Cell>(p).run();
  ++checks;
  std::string what;
  try {
    const Result found = Layer<Cell, T>(p, way, cell).run();
    // Where all terms of a sum cancel, rounding is seen against the terms, of order one.
    const Worst worst = compare(found, expected, 1);
    if (worst.value < limit<Cell, T>(way.operand)) return;
    char text[100];
    std::snprintf(text, sizeof text, "%s off by %.3g, limit %.3g", worst.of, worst.value,
                  limit<Cell, T>(way.operand));
    what = text;
  } catch (const std::exception& error) {
    what = error.what();
  }
  ++failures;
  std::printf(
      "FAILED: %s T=%d B=%d I=%d H=%d P=%d reverse=%d bias=%d initial=%d ragged=%d packed=%d "
      "steps=%d exchange=%d ranks=%d rows=%d: %s\n",
      Cell::name, int(p.size.steps), int(p.size.batch), int(p.size.inputs), int(p.size.units),
      int(p.size.outputs), p.reverse, p.bias, p.initial, ragged, way.packed, way.steps,
      int(way.exchange), way.ranks, way.rows, what.c_str());
}

template <class Cell, class T>
void check_persistent(int cell, gpu::Operand operand, bool full) {
  using gpu::Exchange;
  struct Case {
    Shape shape;
    Exchange exchange;
    int ranks, rows;
  };
  const Case quick[] = {{{3, 1, 1, 1, 0}, Exchange::block, 1, 1},
                        {{4, 3, 2, 7, 0}, Exchange::block, 1, 2},
                        {{3, 9, 2, 33, 0}, Exchange::block, 1, 9},
                        {{3, 2, 1, 64, 0}, Exchange::block, 1, 1},
                        {{4, 3, 2, 13, 0}, Exchange::cluster, 3, 2},
                        {{4, 3, 2, 17, 0}, Exchange::grid, 2, 2},
                        // More weights than registers hold, of the cells with gates.
                        {{2, 2, 1, 200, 0}, Exchange::cluster, 3, 2}};
  const Case more[] = {
      {{3, 1, 2, 128, 0}, Exchange::block, 1, 1},   {{2, 12, 1, 31, 0}, Exchange::block, 1, 12},
      {{9, 7, 3, 16, 0}, Exchange::block, 1, 3},    {{3, 3, 2, 65, 0}, Exchange::block, 1, 1},
      {{3, 9, 2, 50, 0}, Exchange::cluster, 4, 9},  {{2, 1, 1, 256, 0}, Exchange::cluster, 8, 1},
      {{9, 3, 1, 40, 0}, Exchange::cluster, 16, 3}, {{3, 2, 1, 300, 0}, Exchange::grid, 10, 2},
      {{9, 3, 2, 33, 0}, Exchange::grid, 5, 1}};
  int number = 0;
  const auto run = [&](const Case& c) {
    for (int variant = 0; variant < (full ? 6 : 2); ++variant, ++number) {
      Way way;
      way.operand = operand;
      way.exchange = c.exchange;
      way.ranks = c.ranks;
      way.rows = c.rows;
      way.packed = number % 3 == 1;
      way.y_gradient = number % 5 != 4;
      way.last_gradient = number % 7 != 6;
      check<Cell, T>(cell, c.shape, false, number % 3 != 0, number * 3 + variant, way);
    }
  };
  for (const Case& c : quick) run(c);
  if (full) {
    for (const Case& c : more) run(c);
  }
}

template <class Cell, class T>
void check_steps(int cell, gpu::Operand operand, bool full) {
  const Shape shapes[] = {{3, 1, 1, 1, 1}, {4, 3, 2, 7, 3}, {3, 9, 2, 33, 8}, {9, 2, 3, 70, 40}};
  int number = 0;
  for (const Shape& shape : shapes) {
    for (int flags = 0; flags < (full ? 8 : 2); ++flags, ++number) {
      Way way;
      way.steps = true;
      way.operand = operand;
      way.packed = number % 3 == 1;
      way.y_gradient = number % 5 != 4;
      way.last_gradient = number % 7 != 6;
      const bool ragged = number % 3 != 0;
      check<Cell, T>(cell, shape, false, ragged, number * 3, way);
      if (gpu::cell_traits(cell).projects) {
        check<Cell, T>(cell, shape, true, ragged, number * 3 + 1, way);
      }
    }
  }
}

template <class T, class... Cell>
void check_cells(gpu::Operand operand, bool full, CellList<Cell...>) {
  int place = 0;
  const auto one = [&](auto kind) {
    using Kind = decltype(kind);
    const int cell = place++;
    if constexpr (Kind::phases == 1 && sizeof(T) < 8) {
      check_persistent<Kind, T>(cell, operand, full);
    }
    if (operand != gpu::Operand::tensor_floats) check_steps<Kind, T>(cell, operand, full);
  };
  (one(Cell()), ...);
}

}  // namespace
}  // namespace rnncells::emulation

int main(int count, char** arguments) {
  using namespace rnncells;
  using namespace rnncells::emulation;
  if (count != 3) return 2;
  const bool full = std::strcmp(arguments[2], "full") == 0;
  const std::string type = arguments[1];
  using gpu::Operand;
  if (type == "float32") check_cells<float>(Operand::singles, full, AllCells());
  if (type == "tf32") check_cells<float>(Operand::tensor_floats, full, AllCells());
  if (type == "float64") check_cells<double>(Operand::singles, full, AllCells());
  if (type == "float16") check_cells<Float16>(Operand::sixteen_bits, full, AllCells());
  if (type == "bfloat16") check_cells<BFloat16>(Operand::sixteen_bits, full, AllCells());
  std::printf("%s: %d checks, %d failures\n", type.c_str(), checks, failures);
  return failures == 0 && checks > 0 ? 0 : 1;
}
