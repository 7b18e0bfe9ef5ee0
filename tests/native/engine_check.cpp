// Runs every cell of the CPU engine, in one instruction set, against plain scalar loops over the
// same cell headers. No torch. Built with the address and undefined-behaviour sanitizers, every
// buffer exactly as large as it must be. Usage: engine_check baseline|avx2|avx512
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
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

template <class T>
std::vector<T> cast(const Numbers& numbers) {
  return std::vector<T>(numbers.begin(), numbers.end());
}

template <class T>
struct Buffers {
  std::vector<T> x, w_ih, w_hh, b_ih, b_hh, y, reserve, y_gradient, dx, dw_ih, dw_hh, db_ih, db_hh;
  std::vector<std::vector<T>> states, last, last_gradient, dstates;
};

template <class T>
Result run_engine(const CellEngine& engine, const Problem& p, bool threads) {
  const auto [steps, batch, inputs, units] = p.size;
  const int64_t gates = engine.facts.gates, cells = batch * units;
  Buffers<T> b;
  b.x = cast<T>(p.x);
  b.w_ih = cast<T>(p.w_ih);
  b.w_hh = cast<T>(p.w_hh);
  b.b_ih = cast<T>(p.b_ih);
  b.b_hh = cast<T>(p.b_hh);
  b.y_gradient = cast<T>(p.y_gradient);
  b.y.resize(steps * cells);
  b.reserve.resize(steps * cells * engine.facts.reserve_slots);
  b.dx.resize(p.x.size());
  b.dw_ih.resize(gates * units * inputs);
  b.dw_hh.resize(gates * units * units);
  b.db_ih.resize(gates * units);
  b.db_hh.resize(gates * units);
  const Pool pool{threads ? run_on_threads : nullptr, threads ? 2 : 1, 0};
  const Weights<T> weights{b.w_ih.data(),
                           inputs,
                           1,
                           b.w_hh.data(),
                           units,
                           1,
                           p.bias ? b.b_ih.data() : nullptr,
                           1,
                           p.bias ? b.b_hh.data() : nullptr,
                           1};
  ForwardCall<T> f{};
  BackwardCall<T> g{};
  f.sizes = g.sizes = p.size;
  f.reverse = g.reverse = p.reverse;
  f.x = g.x = b.x.data();
  f.x_step_stride = g.x_step_stride = batch * inputs;
  f.x_batch_stride = g.x_batch_stride = inputs;
  f.x_column_stride = g.x_column_stride = 1;
  f.weights = g.weights = weights;
  f.y = b.y.data();
  g.y = b.y.data();
  f.y_row_stride = g.y_row_stride = units;
  f.reserve = b.reserve.empty() ? nullptr : b.reserve.data();
  g.reserve = f.reserve;
  f.pool = g.pool = pool;
  for (int i = 0; i < engine.facts.states; ++i) {
    b.states.push_back(cast<T>(p.states[i]));
    b.last.emplace_back(cells);
    b.last_gradient.push_back(cast<T>(p.last_gradient[i]));
    b.dstates.emplace_back(cells);
    f.initial[i] = g.initial[i] = p.initial ? b.states[i].data() : nullptr;
    f.last[i] = b.last[i].data();
    g.last_gradient[i] = b.last_gradient[i].data();
    g.initial_gradient[i] = b.dstates[i].data();
  }
  g.y_gradient = b.y_gradient.data();
  g.y_gradient_step_stride = cells;
  g.y_gradient_batch_stride = units;
  g.x_gradient = b.dx.data();
  g.input_weight_gradient = b.dw_ih.data();
  g.recurrent_weight_gradient = b.dw_hh.data();
  g.input_bias_gradient = b.db_ih.data();
  g.recurrent_bias_gradient = b.db_hh.data();
  engine.forward(f);
  const std::vector<T> kept = b.y, reserve = b.reserve;
  engine.backward(g);
  if (reserve != b.reserve) std::printf("FAILED: backward wrote the reserve\n"), std::exit(1);
  f.reserve = nullptr;  // inference gives the same bits
  engine.forward(f);
  if (kept != b.y) std::printf("FAILED: inference differs from training\n"), std::exit(1);
  Result r;
  const auto back = [](const std::vector<T>& v) { return Numbers(v.begin(), v.end()); };
  r.y = back(b.y);
  r.dx = back(b.dx);
  r.dw_ih = back(b.dw_ih);
  r.dw_hh = back(b.dw_hh);
  r.db_ih = back(b.db_ih);
  r.db_hh = back(b.db_hh);
  for (const auto& v : b.last) r.last.push_back(back(v));
  for (const auto& v : b.dstates) r.dstates.push_back(back(v));
  return r;
}

double difference(const Numbers& a, const Numbers& b) {
  double most = 0, scale = 1e-30;
  for (size_t i = 0; i < a.size(); ++i) {
    most = std::max(most, std::abs(a[i] - b[i]));
    scale = std::max(scale, std::abs(b[i]));
  }
  return most / scale;
}

double difference(const Result& a, const Result& b) {
  double most = std::max({difference(a.y, b.y), difference(a.dx, b.dx),
                          difference(a.dw_ih, b.dw_ih), difference(a.dw_hh, b.dw_hh),
                          difference(a.db_ih, b.db_ih), difference(a.db_hh, b.db_hh)});
  for (size_t i = 0; i < a.last.size(); ++i) {
    most =
        std::max({most, difference(a.last[i], b.last[i]), difference(a.dstates[i], b.dstates[i])});
  }
  return most;
}

int failures = 0, checks = 0;

template <class Cell>
void check_cell(const CellEngine& engine) {
  const int64_t shapes[][4] = {{1, 1, 1, 1},   {3, 2, 1, 5},    {2, 7, 33, 15},  {5, 13, 3, 17},
                               {4, 5, 40, 33}, {2, 3, 65, 70},  {90, 8, 2, 9},   {3, 40, 31, 16},
                               {2, 1, 7, 130}, {300, 1, 34, 4}, {140, 5, 33, 20}};
  for (const auto& s : shapes) {
    for (int flags = 0; flags < 8; ++flags) {
      Problem p;
      p.size = {s[0], s[1], s[2], s[3]};
      p.reverse = flags & 1;
      p.bias = flags & 2;
      p.initial = flags & 4;
      const int64_t rows = Cell::gates * s[3], cells = s[1] * s[3];
      p.x = draw(s[0] * s[1] * s[2]);
      p.w_ih = draw(rows * s[2], 1 / std::sqrt(double(s[3])));
      p.w_hh = draw(rows * s[3], 1 / std::sqrt(double(s[3])));
      p.b_ih = draw(rows);
      p.b_hh = draw(rows);
      p.y_gradient = draw(s[0] * cells);
      for (int i = 0; i < Cell::states; ++i) {
        p.states.push_back(draw(cells));
        p.last_gradient.push_back(draw(cells));
      }
      const Result expected = scalar::Layer<Cell>(p).run();
      // Rounding grows with the number of rows summed (at most 700) and of steps (at most 300):
      // some hundreds of units in the last place at the worst.
      const double wide = difference(run_engine<double>(engine, p, flags & 1), expected);
      const double narrow = difference(run_engine<float>(engine, p, !(flags & 1)), expected);
      checks += 2;
      if (!(wide < 1000 * std::numeric_limits<double>::epsilon()) ||
          !(narrow < 1000 * std::numeric_limits<float>::epsilon())) {
        ++failures;
        std::printf("FAILED: %s T=%d B=%d I=%d H=%d flags=%d: double %.3g, float %.3g\n",
                    Cell::name, int(s[0]), int(s[1]), int(s[2]), int(s[3]), flags, wide, narrow);
      }
    }
  }
}

template <class... Cell>
void check_cells(CellList<Cell...>) {
  const CellEngine* engine = cpu_engine().begin();
  (check_cell<Cell>(*engine++), ...);
}

}  // namespace
}  // namespace rnncells

int main(int, char** arguments) {
  rnncells::set_isa(arguments[1]);
  rnncells::check_cells(rnncells::AllCells());
  std::printf("%s: %d checks, %d failures\n", arguments[1], rnncells::checks, rnncells::failures);
  return rnncells::failures == 0 ? 0 : 1;
}
