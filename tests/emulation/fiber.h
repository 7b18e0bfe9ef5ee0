// A fiber: a function with a stack of its own, which runs until it switches back.
#pragma once

#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#include <cstdint>
#include <cstdlib>
#include <new>

namespace rnncells::emulation {

using FiberBody = void (*)(void* context);

#if defined(__x86_64__)
// Saves what a function must keep, on the stack it leaves, and goes on on the other stack.
extern "C" void rnncells_switch_stack(void** left, void* entered);
asm(R"(
.text
.type rnncells_switch_stack,@function
rnncells_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size rnncells_switch_stack,.-rnncells_switch_stack
)");
#endif

class Fiber {
 public:
  static constexpr size_t stack_bytes = 64 * 1024;

  Fiber() {
    stack_ = static_cast<char*>(mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (stack_ == MAP_FAILED) throw std::bad_alloc();
  }
  ~Fiber() { munmap(stack_, stack_bytes); }
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // `body` must not return: its last act is a leave() after which nobody enters.
  void prepare(FiberBody body, void* context) {
    body_ = body;
    context_ = context;
#if defined(__x86_64__)
    auto* top = reinterpret_cast<void**>(stack_ + stack_bytes - 64);
    *--top = nullptr;  // as after a call: the stack is 8 bytes off a multiple of 16
    *--top = reinterpret_cast<void*>(&start);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    own_ = top;
#else
    getcontext(&own_);
    own_.uc_stack.ss_sp = stack_;
    own_.uc_stack.ss_size = stack_bytes;
    makecontext(&own_, reinterpret_cast<void (*)()>(&start), 0);
#endif
  }
  void enter() {
    current_ = this;
#if defined(__x86_64__)
    rnncells_switch_stack(&caller_, own_);
#else
    swapcontext(&caller_, &own_);
#endif
  }
  void leave() {
#if defined(__x86_64__)
    rnncells_switch_stack(&own_, caller_);
#else
    swapcontext(&own_, &caller_);
#endif
  }

 private:
  static void start() {
    current_->body_(current_->context_);
    std::abort();
  }

  static inline Fiber* current_ = nullptr;
  char* stack_;
  FiberBody body_ = nullptr;
  void* context_ = nullptr;
#if defined(__x86_64__)
  void *own_ = nullptr, *caller_ = nullptr;
#else
  ucontext_t own_, caller_;
#endif
};

}  // namespace rnncells::emulation
