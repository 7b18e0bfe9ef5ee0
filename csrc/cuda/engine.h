// What the CUDA engine offers to the operators: functions that launch kernels on a stream. No
// torch, and no header of CUDA's. Nothing here allocates or waits for the device. A function
// returns null, or what went wrong.
//
// layer_forward.h and layer_backward.h are the way of one direction through these functions.
#pragma once

#include <cstdint>

#include "cuda/row_calls.h"
#include "cuda/step_calls.h"

namespace rnncells::gpu {

using Stream = void*;  // a cudaStream_t
struct TensorFloat;

// In how many parts sum_rows adds so many rows.
int64_t sum_parts(int64_t count);

struct CellTraits {
  const char* name;
  int gates, states, phases, shares, recurrent_shares, reserve_slots;
  bool separate_gradients;  // of the shares that x feeds, and of those that h feeds
  bool projects;
  int unit_parameters;
  bool per_unit_recurrence;  // W_hh [G*H] are its unit parameters: there is no product
  bool open, middle;
  int middle_gate;               // whose rows a middle's scale and shift are, unless it has its own
  ActivationChoice activations;  // its own, where it is open
};
// By the place in AllCells, and, behind them, in OtherCells; cell_place gives -1 for a name that is
// none.
int cell_count();
const CellTraits& cell_traits(int cell);
int cell_place(const char* name);
// Whether it is one of AllCells. The varied kernels of one step serve the others, whatever a call
// asks for.
bool is_plain(int cell);

// The recurrent product of one phase: its gates, and the reserve's slot of what it multiplies; -1
// for the hidden state.
struct PhaseTraits {
  int first_gate, gates, operand;
};
PhaseTraits phase_traits(int cell, int phase);

// T is float, Float16 or BFloat16; for all others also double.
template <class T>
const char* persistent_forward(int cell, const PersistentForward<T>& call, Stream stream);
template <class T>
const char* persistent_backward(int cell, const PersistentBackward<T>& call, Stream stream);
// The same in one way to store the products' operand, which `call.operand` is: float, TensorFloat,
// Float16 or BFloat16.
template <class T, class E>
const char* launch_forward(int cell, const PersistentForward<T>& call, Stream stream);
template <class T, class E>
const char* launch_backward(int cell, const PersistentBackward<T>& call, Stream stream);
template <class T>
const char* step_forward(int cell, const StepForward<T>& call, Stream stream);
template <class T>
const char* step_backward(int cell, const StepBackward<T>& call, Stream stream);
// The same with a variant, and of any cell.
template <class T>
const char* varied_forward(int cell, const StepForward<T>& call, Stream stream);
template <class T>
const char* varied_backward(int cell, const StepBackward<T>& call, Stream stream);
// And with layer norm, all phases at once.
template <class T>
const char* normed_forward(int cell, const NormedForward<T>& call, Stream stream);
template <class T>
const char* normed_backward(int cell, const NormedBackward<T>& call, Stream stream);
template <class T>
const char* draw_mask(const DrawMask<T>& call, Stream stream);
const char* draw_events(const DrawEvents& call, Stream stream);
template <class T>
const char* enter_first_step(const EnterFirstStep<T>& call, Stream stream);
template <class T>
const char* leave_first_step(const LeaveFirstStep<T>& call, Stream stream);
template <class T>
const char* masked_operands(const MaskedOperands<T>& call, Stream stream);
// From sums of each sequence [B, columns] to their sum.
template <class T>
const char* add_sequences(const Compute<T>* sums, int64_t batch, int64_t columns, T* total,
                          Stream stream);
template <class T>
const char* store_outputs(const StoreOutputs<T>& call, Stream stream);
template <class T>
const char* gather_output_gradient(const GatherOutputGradient<T>& call, Stream stream);
template <class T>
const char* previous_outputs(const PreviousOutputs<T>& call, Stream stream);
template <class T>
const char* copy_rows(const CopyRows<T>& call, Stream stream);
template <class T>
const char* widen_values(const WidenValues<T>& call, Stream stream);
template <class T>
const char* narrow_sum(const NarrowSum<T>& call, Stream stream);
template <class T>
const char* sum_rows(const SumRows<T>& call, Stream stream);
const char* bring_values(const int64_t* from, int64_t count, int64_t* to, Stream stream);
const char* clamp_lengths(const ClampLengths& call, Stream stream);

}  // namespace rnncells::gpu
