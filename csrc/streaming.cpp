#include "streaming.h"

#include <ATen/dlpack.h>

#include <initializer_list>
#include <new>

#include "cpu/isa.h"
#include "cpu/regime.h"

namespace rnncells {
namespace {

constexpr int most_weights = 4;

// A reference that is given back.
class Owned {
 public:
  explicit Owned(PyObject* object = nullptr) : object_(object) {}
  ~Owned() { Py_XDECREF(object_); }
  Owned(Owned&& other) noexcept : object_(other.release()) {}
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  PyObject* get() const { return object_; }
  PyObject* release() {
    PyObject* object = object_;
    object_ = nullptr;
    return object;
  }

 private:
  PyObject* object_;
};

// What Python tells once: torch's classes and functions, held for good.
struct Torch {
  const DLPackExchangeAPI* exchange;  // null: none that is known here
  PyObject *tensor, *parameter, *empty_like, *new_empty, *is_neg, *watchers;
};
Torch torch{};

// watch(Tensor, Parameter, empty_like, watchers): functions without arguments of which each says
// something true while calls have to go through torch's dispatcher.
PyObject* watch(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  if (count != 4 || !PyTuple_Check(arguments[3])) {
    PyErr_SetString(PyExc_TypeError, "rnncells: watch takes two classes, a function and a tuple");
    return nullptr;
  }
  Torch found{};
  const Owned capsule(PyObject_GetAttrString(arguments[0], "__dlpack_c_exchange_api__"));
  if (capsule.get() != nullptr) {
    found.exchange = static_cast<const DLPackExchangeAPI*>(
        PyCapsule_GetPointer(capsule.get(), "dlpack_exchange_api"));
  }
  PyErr_Clear();
  if (found.exchange != nullptr && found.exchange->header.version.major != DLPACK_MAJOR_VERSION) {
    found.exchange = nullptr;
  }
  found.tensor = Py_NewRef(arguments[0]);
  found.parameter = Py_NewRef(arguments[1]);
  found.empty_like = Py_NewRef(arguments[2]);
  found.watchers = Py_NewRef(arguments[3]);
  found.new_empty = PyUnicode_InternFromString("new_empty");
  found.is_neg = PyUnicode_InternFromString("is_neg");
  torch = found;
  Py_RETURN_NONE;
}

bool somebody_watches() {
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(torch.watchers); ++i) {
    const Owned says(PyObject_CallNoArgs(PyTuple_GET_ITEM(torch.watchers, i)));
    if (says.get() == nullptr || PyObject_IsTrue(says.get()) != 0) return true;
  }
  return false;
}

// One of torch's own tensors, dense, on the CPU.
struct View {
  PyObject* object = nullptr;
  DLTensor t{};

  bool read(PyObject* from) {
    object = from;
    const auto type = reinterpret_cast<PyObject*>(Py_TYPE(from));
    if (type != torch.tensor && type != torch.parameter) return false;
    if (torch.exchange->dltensor_from_py_object_no_sync(from, &t) != 0) return false;
    return t.device.device_type == kDLCPU && t.data != nullptr && t.ndim > 0 &&
           t.strides[t.ndim - 1] == 1 && !waits_to_be_negated();
  }
  bool is(std::initializer_list<int64_t> shape, const DLDataType& dtype) const {
    if (t.ndim != static_cast<int32_t>(shape.size()) || t.dtype.code != dtype.code ||
        t.dtype.bits != dtype.bits) {
      return false;
    }
    int64_t contiguous = 1;
    for (int i = t.ndim - 1; i >= 0; --i) {
      if (t.shape[i] != shape.begin()[i]) return false;
      if (t.strides[i] != contiguous && t.shape[i] != 1) return false;
      contiguous *= t.shape[i];
    }
    return true;
  }
  // As the imaginary part of a conjugate does, of which DLPack says nothing.
  bool waits_to_be_negated() const {
    PyObject* self = object;
    const Owned says(PyObject_VectorcallMethod(torch.is_neg, &self, 1, nullptr));
    return says.get() != Py_False;
  }
  template <class T>
  T* data() const {
    return reinterpret_cast<T*>(static_cast<char*>(t.data) + t.byte_offset);
  }
};

// What a layer or a cell knows of itself: (place of the cell in the table, I, H, names of the
// weights).
struct Plan {
  int64_t cell, inputs, units;
  PyObject* names;

  explicit Plan(PyObject* tuple)
      : cell(PyLong_AsLongLong(PyTuple_GET_ITEM(tuple, 0))),
        inputs(PyLong_AsLongLong(PyTuple_GET_ITEM(tuple, 1))),
        units(PyLong_AsLongLong(PyTuple_GET_ITEM(tuple, 2))),
        names(PyTuple_GET_ITEM(tuple, 3)) {}
};

// None, also where a tensor could not be read: the ordinary way says what is wrong with it.
PyObject* not_a_case() {
  PyErr_Clear();
  Py_RETURN_NONE;
}

// One call. Each step says whether this is a case for streaming; where it is not, the caller goes
// the ordinary way, which refuses what is wrong.
class Call {
 public:
  Call(PyObject* plan, bool batch_first, bool is_cell)
      : plan_(plan), batch_first_(batch_first), is_cell_(is_cell) {}

  // [T, B, I] or [B, T, I], [T, I] for one sequence; a cell's [B, I], [I].
  bool read_input(PyObject* input) {
    if (!x_.read(input)) return false;
    const DLTensor& t = x_.t;
    const int rank = t.ndim, batched = is_cell_ ? 2 : 3;
    if (rank != batched && rank != batched - 1) return false;
    batched_ = rank == batched;
    if (t.shape[rank - 1] != plan_.inputs) return false;
    const int step = batch_first_ && batched_ ? 1 : 0, row = 1 - step;
    if (is_cell_) {
      steps_ = 1;
      batch_ = batched_ ? t.shape[0] : 1;
      row_stride_ = t.strides[0];
    } else {
      steps_ = t.shape[step];
      batch_ = batched_ ? t.shape[row] : 1;
      step_stride_ = t.strides[step];
      row_stride_ = t.strides[row];
    }
    return steps_ > 0 && batch_ > 0 && steps_ * batch_ <= streamed_rows && is_float(t.dtype);
  }

  bool read_weights(PyObject* parameters) {
    weight_count_ = static_cast<int>(PyTuple_GET_SIZE(plan_.names));
    if (plan_.cell >= cpu_engine().count || weight_count_ > most_weights) return false;
    const int64_t rows = engine().facts.gates * plan_.units;
    for (int i = 0; i < weight_count_; ++i) {
      PyObject* weight = PyDict_GetItem(parameters, PyTuple_GET_ITEM(plan_.names, i));
      if (weight == nullptr) return false;
      if (weight == Py_None && is_cell_ && i == 2 && weight_count_ == most_weights &&
          PyDict_GetItem(parameters, PyTuple_GET_ITEM(plan_.names, 3)) == Py_None) {
        weight_count_ = 2;  // a cell without biases
        return true;
      }
      if (!weights_[i].read(weight)) return false;
      const DLDataType& dtype = x_.t.dtype;
      const bool fits = i == 0   ? weights_[i].is({rows, plan_.inputs}, dtype)
                        : i == 1 ? weights_[i].is({rows, plan_.units}, dtype)
                                 : weights_[i].is({rows}, dtype);
      if (!fits) return false;
    }
    return true;
  }

  // None, a tensor, or a tuple of as many as the cell has.
  bool read_states(PyObject* hx) {
    if (hx == Py_None) return true;
    const int count = engine().facts.states;
    if (count > 1 && (!PyTuple_Check(hx) || PyTuple_GET_SIZE(hx) != count)) return false;
    for (int i = 0; i < count; ++i) {
      if (!states_[i].read(count == 1 ? hx : PyTuple_GET_ITEM(hx, i))) return false;
      const DLDataType& dtype = x_.t.dtype;
      const bool fits = is_cell_   ? batched_ ? states_[i].is({batch_, plan_.units}, dtype)
                                              : states_[i].is({plan_.units}, dtype)
                        : batched_ ? states_[i].is({1, batch_, plan_.units}, dtype)
                                   : states_[i].is({1, plan_.units}, dtype);
      if (!fits) return false;
    }
    has_states_ = true;
    return true;
  }

  // y and the last states, as forward returns them; or None where somebody makes tensors of a kind
  // of their own.
  PyObject* run() {
    const int count = engine().facts.states;
    Owned y(is_cell_ ? nullptr : make_output());
    if (!is_cell_ && y.get() == nullptr) return nullptr;
    Owned last(PyTuple_New(count));
    if (last.get() == nullptr) return nullptr;
    View targets[max_states], output;
    for (int i = 0; i < count; ++i) {
      PyObject* state = make_state(i, i == 0 ? y.get() : PyTuple_GET_ITEM(last.get(), 0));
      if (state == nullptr) return nullptr;
      PyTuple_SET_ITEM(last.get(), i, state);
      if (!targets[i].read(state)) return not_a_case();
    }
    if (is_cell_) {
      output = targets[0];
    } else if (!output.read(y.get())) {
      return not_a_case();
    }
    bool done = true;
    Py_BEGIN_ALLOW_THREADS;  // as while torch's operators work
    try {
      compute(output, targets);
    } catch (const std::bad_alloc&) {
      done = false;
    }
    Py_END_ALLOW_THREADS;
    if (!done) return PyErr_NoMemory();
    PyObject* states = count == 1 ? Py_NewRef(PyTuple_GET_ITEM(last.get(), 0)) : last.release();
    if (is_cell_) return states;
    PyObject* result = PyTuple_Pack(2, y.get(), states);
    Py_DECREF(states);
    return result;
  }

 private:
  const CellEngine& engine() const { return cpu_engine().begin()[plan_.cell]; }

  static bool is_float(const DLDataType& dtype) {
    if (dtype.code == kDLBfloat) return dtype.bits == 16;
    return dtype.code == kDLFloat && (dtype.bits == 16 || dtype.bits == 32 || dtype.bits == 64);
  }

  // A new tensor, contiguous, of the input's kind; like `model`, where that has the shape.
  PyObject* make(std::initializer_list<int64_t> shape, PyObject* model) const {
    if (model != nullptr) {
      View view;
      if (view.read(model) && view.is(shape, x_.t.dtype)) {
        return PyObject_Vectorcall(torch.empty_like, &model, 1, nullptr);
      }
    }
    const Owned sizes(PyTuple_New(static_cast<Py_ssize_t>(shape.size())));
    if (sizes.get() == nullptr) return nullptr;
    Py_ssize_t place = 0;
    for (const int64_t size : shape) {
      PyTuple_SET_ITEM(sizes.get(), place++, PyLong_FromLongLong(size));
    }
    PyObject* arguments[] = {x_.object, sizes.get()};
    return PyObject_VectorcallMethod(torch.new_empty, arguments, 2, nullptr);
  }
  PyObject* make_output() const {
    PyObject* model = has_states_ ? states_[0].object : nullptr;
    if (!batched_) return make({steps_, plan_.units}, model);
    if (batch_first_) return make({batch_, steps_, plan_.units}, model);
    return make({steps_, batch_, plan_.units}, model);
  }
  PyObject* make_state(int i, PyObject* other) const {
    PyObject* model = has_states_ ? states_[i].object : other;
    if (is_cell_) return batched_ ? make({batch_, plan_.units}, model) : make({plan_.units}, model);
    return batched_ ? make({1, batch_, plan_.units}, model) : make({1, plan_.units}, model);
  }

  void compute(const View& output, const View* targets) const {
    if (x_.t.dtype.code == kDLBfloat) {
      compute_as<BFloat16>(output, targets);
    } else if (x_.t.dtype.bits == 16) {
      compute_as<Float16>(output, targets);
    } else if (x_.t.dtype.bits == 32) {
      compute_as<float>(output, targets);
    } else {
      compute_as<double>(output, targets);
    }
  }

  template <class T>
  void compute_as(const View& output, const View* targets) const {
    const int64_t units = plan_.units;
    ForwardCall<T> call{};
    call.sizes = {steps_, batch_, plan_.inputs, units, units};
    call.x = x_.data<const T>();
    call.x_step_stride = step_stride_;
    call.x_batch_stride = row_stride_;
    call.x_column_stride = 1;
    call.y = output.data<T>();
    call.y_step_stride = batch_first_ ? units : batch_ * units;
    call.y_batch_stride = batch_first_ ? steps_ * units : units;
    Weights<T>& w = call.weights;
    w.input = weights_[0].data<const T>();
    w.input_row_stride = plan_.inputs;
    w.recurrent = weights_[1].data<const T>();
    w.recurrent_row_stride = units;
    w.input_column_stride = w.recurrent_column_stride = 1;
    if (weight_count_ == most_weights) {
      w.input_bias = weights_[2].data<const T>();
      w.recurrent_bias = weights_[3].data<const T>();
      w.input_bias_stride = w.recurrent_bias_stride = 1;
    }
    for (int i = 0; i < engine().facts.states; ++i) {
      if (has_states_) call.initial[i] = states_[i].data<const T>();
      call.last[i] = targets[i].data<T>();
    }
    call.regime = choose_regime(engine().facts, call.sizes, {false, false, false, false, true});
    engine().functions<T>().forward(call);
  }

  const Plan plan_;
  const bool batch_first_, is_cell_;
  bool batched_ = true, has_states_ = false;
  int64_t steps_ = 0, batch_ = 0, step_stride_ = 0, row_stride_ = 0;
  int weight_count_ = 0;
  View x_, weights_[most_weights], states_[max_states];
};

// f(plan, parameters, batch_first, input, hx): what forward returns, or None where it is no case
// for streaming.
PyObject* stream(PyObject* const* arguments, Py_ssize_t count, bool is_cell) {
  if (torch.exchange == nullptr || count != 5 || !PyTuple_Check(arguments[0]) ||
      PyTuple_GET_SIZE(arguments[0]) != 4 || !PyDict_Check(arguments[1])) {
    Py_RETURN_NONE;
  }
  Call call(arguments[0], PyObject_IsTrue(arguments[2]) == 1, is_cell);
  if (call.read_input(arguments[3]) && call.read_weights(arguments[1]) &&
      call.read_states(arguments[4]) && !somebody_watches()) {
    return call.run();
  }
  return not_a_case();
}

PyObject* stream_layer(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  return stream(arguments, count, false);
}
PyObject* stream_cell(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  return stream(arguments, count, true);
}

PyCFunction fast(PyObject* (*function)(PyObject*, PyObject* const*, Py_ssize_t)) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

}  // namespace

PyMethodDef streaming_methods[] = {
    {"watch", fast(watch), METH_FASTCALL, "Tells the streaming calls what torch's classes are."},
    {"stream_layer", fast(stream_layer), METH_FASTCALL,
     "(plan, parameters, batch_first, input, hx): what forward returns, or None: "
     "rnncells.streaming."},
    {"stream_cell", fast(stream_cell), METH_FASTCALL, "The same for a cell."},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace rnncells
