// Threads that take the same sequences through time together, each some of the units.
//
// They wait for each other at every step, so all of them must be running. Who has not come in a
// short while is not waited for: threads may be busy elsewhere. No result depends on how many come.
#pragma once

#include "cpu/memory.h"
#include "cpu/system_headers.h"

namespace rnncells {
namespace RNNCELLS_ISA {

class Team {
 public:
  // All have come when the pieces of work that they were given are as many as there are.
  explicit Team(int pieces) : pieces_(pieces) {}

  // The number of the calling thread among those that take part, or -1 where it came too late.
  int join(int pieces) {
    int seen = look(joined_);
    do {
      if (seen & closed) return -1;
    } while (!__atomic_compare_exchange_n(&joined_, &seen, with(seen, pieces), false,
                                          __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
    const int number = seen & members;
    for (int turn = 0; !(look(joined_) & closed); ++turn) {
      rest(turn);
      if (number == 0 && turn >= patience) __atomic_or_fetch(&joined_, closed, __ATOMIC_ACQ_REL);
    }
    return number;
  }
  // How many take part; known to those who do.
  int size() const { return look(joined_) & members; }

  // Returns when all have called it. What they wrote before is seen by all after.
  void wait() {
    const int round = look(round_);
    if (__atomic_add_fetch(&waiting_, 1, __ATOMIC_ACQ_REL) == size()) {
      __atomic_store_n(&waiting_, 0, __ATOMIC_RELAXED);
      __atomic_store_n(&round_, round + 1, __ATOMIC_RELEASE);
      return;
    }
    for (int turn = 0; look(round_) == round; ++turn) rest(turn);
  }

 private:
  // Of joined_: the members, the pieces that they were given, and whether nobody can join any more.
  static constexpr int members = (1 << 15) - 1, piece = 1 << 15, closed = 1 << 30;
  static constexpr int patience = 20000;  // some tenths of a millisecond
  static constexpr int eager = 4000;      // turns before the processor is offered to others

  int with(int seen, int pieces) const {
    const int now = seen + 1 + pieces * piece;
    return now / piece >= pieces_ ? now | closed : now;
  }
  static int look(const int& value) { return __atomic_load_n(&value, __ATOMIC_ACQUIRE); }
  static void rest(int turn) {
    if (turn >= eager) {
      sched_yield();
      return;
    }
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
  }

  const int pieces_;
  // Apart, since all look at one while others are written.
  alignas(64) int joined_ = 0;
  alignas(64) int waiting_ = 0;
  alignas(64) int round_ = 0;
};

// The share of a thread in what a team does; or all of it.
struct Part {
  int number = 0, parts = 1;
  Team* team = nullptr;
  int64_t begin(int64_t n) const { return n * number / parts; }
  int64_t end(int64_t n) const { return n * (number + 1) / parts; }
  void wait() const {
    if (team != nullptr) team->wait();
  }
};

// Whether threads should share the units of a step: where there are fewer sequences than threads,
// and a step is worth waiting for each other. Its work is in multiply-adds.
RNNCELLS_INLINE bool shares_units(const Pool& pool, int64_t batch, int64_t step_work) {
  return pool.threads > 1 && batch < pool.threads && step_work >= pool.least_step_work;
}

// Runs body(part, space) on the threads of a team of at most `most`; each has its own space, which
// prepare() makes. That may fail, and does so before anybody waits for the thread; body does not.
template <class Prepare, class Body>
RNNCELLS_INLINE void in_team(const Pool& pool, int64_t most, const Prepare& prepare,
                             const Body& body) {
  struct Work {
    Team team;
    const int64_t pieces;
    const Prepare& prepare;
    const Body& body;
  } work{Team(static_cast<int>(smaller(pool.threads, most))), smaller(pool.threads, most), prepare,
         body};
  pool.run(
      work.pieces,
      [](int64_t begin, int64_t end, void* context) {
        Work& own = *static_cast<Work*>(context);
        const auto space = own.prepare();
        if (end - begin == own.pieces) return own.body(Part(), space);
        const int number = own.team.join(static_cast<int>(end - begin));
        if (number >= 0) own.body(Part{number, own.team.size(), &own.team}, space);
      },
      &work);
}

}  // namespace RNNCELLS_ISA
}  // namespace rnncells
