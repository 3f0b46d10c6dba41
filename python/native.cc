// w4tune._native: the C ABI of libw4tune as Python functions, for any Python from 3.10 (limited
// API).
//
// Tensors come as addresses and streams as handles, so it knows nothing of PyTorch; what it is
// given is checked by the library, and a failure raises W4tuneError with the library's words.
// Functions release the GIL while they talk to the GPU. Dispatchers are never closed: CUDA graphs
// may hold their kernels, and they are few.
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030A0000
#include <Python.h>

#include <cstdint>
#include <cstring>

#include "w4tune/w4tune.h"

namespace {

constexpr const char* kCapsule = "w4tune_dispatcher";
constexpr const char* kExtension = "w4tune._native";
PyObject* error_type = nullptr;  // W4tuneError

PyObject* raise_last_error() {
  PyErr_SetString(error_type, w4tune_last_error());
  return nullptr;
}

// None, or an error as an exception.
PyObject* finish(w4tune_status status) {
  if (status != W4TUNE_OK) return raise_last_error();
  Py_RETURN_NONE;
}

// The arguments of a call, taken one after another; the first that does not fit sets a Python
// exception and the rest are zero.
class Arguments {
 public:
  Arguments(const char* call, PyObject* const* values, Py_ssize_t count, Py_ssize_t wanted)
      : values_(values) {
    if (count == wanted) return;
    PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, not %zd", call, wanted, count);
    is_bad_ = true;
  }

  [[nodiscard]] bool ok() const { return !is_bad_; }

  long long integer() {
    if (is_bad_) return 0;
    const long long value = PyLong_AsLongLong(*values_++);
    if (value == -1 && PyErr_Occurred() != nullptr) is_bad_ = true;
    return value;
  }

  int small() {
    const long long value = integer();
    if (value >= INT32_MIN && value <= INT32_MAX) return static_cast<int>(value);
    if (!is_bad_) PyErr_Format(PyExc_OverflowError, "%lld does not fit 32 bits", value);
    is_bad_ = true;
    return 0;
  }

  void* pointer() {
    if (is_bad_) return nullptr;
    void* const value = PyLong_AsVoidPtr(*values_++);
    if (value == nullptr && PyErr_Occurred() != nullptr) is_bad_ = true;
    return value;
  }

  w4tune_dispatcher* dispatcher() {
    if (is_bad_) return nullptr;
    void* const value = PyCapsule_GetPointer(*values_++, kCapsule);
    if (value == nullptr) is_bad_ = true;
    return static_cast<w4tune_dispatcher*>(value);
  }

  // What problem() made.
  w4tune_problem problem() {
    w4tune_problem result{};
    if (is_bad_) return result;
    char* bytes = nullptr;
    Py_ssize_t size = 0;
    if (PyBytes_AsStringAndSize(*values_++, &bytes, &size) != 0) {
      is_bad_ = true;
    } else if (size != sizeof result) {
      PyErr_SetString(PyExc_TypeError, "not a problem: make it by problem()");
      is_bad_ = true;
    } else {
      std::memcpy(&result, bytes, sizeof result);
    }
    return result;
  }

  // A path or None; `holder` owns the bytes.
  const char* path_or_null(PyObject*& holder) {
    if (is_bad_) return nullptr;
    PyObject* const value = *values_++;
    if (value == Py_None) return nullptr;
    if (PyUnicode_FSConverter(value, &holder) == 0) {
      is_bad_ = true;
      return nullptr;
    }
    return PyBytes_AsString(holder);
  }

 private:
  PyObject* const* values_;
  bool is_bad_ = false;
};

template <class Call>
w4tune_status without_gil(const Call& call) {
  PyThreadState* const state = PyEval_SaveThread();
  const w4tune_status status = call();
  PyEval_RestoreThread(state);
  return status;
}

// open(path | None, defaults_path, device) -> dispatcher
PyObject* open_dispatcher(PyObject* /*self*/, PyObject* const* values, Py_ssize_t count) {
  Arguments arguments("open", values, count, 3);
  PyObject* path_holder = nullptr;
  PyObject* defaults_holder = nullptr;
  const char* const path = arguments.path_or_null(path_holder);
  const char* const defaults = arguments.path_or_null(defaults_holder);
  const int device = arguments.small();
  PyObject* result = nullptr;
  if (arguments.ok()) {
    w4tune_dispatcher* dispatcher = nullptr;
    const w4tune_status status =
        without_gil([&] { return w4tune_open_with_defaults(path, defaults, device, &dispatcher); });
    result =
        status == W4TUNE_OK ? PyCapsule_New(dispatcher, kCapsule, nullptr) : raise_last_error();
  }
  Py_XDECREF(path_holder);
  Py_XDECREF(defaults_holder);
  return result;
}

// device_name(dispatcher) -> str; "" where defaults alone serve
PyObject* device_name(PyObject* /*self*/, PyObject* const* values, Py_ssize_t count) {
  Arguments arguments("device_name", values, count, 1);
  const w4tune_dispatcher* const dispatcher = arguments.dispatcher();
  return arguments.ok() ? PyUnicode_FromString(w4tune_device_name(dispatcher)) : nullptr;
}

// problem(op, n, k, group_size, dtype) -> bytes, what the functions below take
PyObject* make_problem(PyObject* /*self*/, PyObject* const* values, Py_ssize_t count) {
  Arguments arguments("problem", values, count, 5);
  w4tune_problem problem{};
  problem.op = arguments.small();
  problem.n = arguments.small();
  problem.k = arguments.small();
  problem.group_size = arguments.small();
  problem.dtype = arguments.small();
  if (!arguments.ok()) return nullptr;
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(&problem), sizeof problem);
}

// packed_sizes(problem) -> (weight bytes, scale bytes); W4tuneError for what no kernel serves
PyObject* packed_sizes(PyObject* /*self*/, PyObject* const* values, Py_ssize_t count) {
  Arguments arguments("packed_sizes", values, count, 1);
  const w4tune_problem problem = arguments.problem();
  if (!arguments.ok()) return nullptr;
  size_t weight = 0;
  size_t scales = 0;
  if (w4tune_packed_sizes(&problem, &weight, &scales) != W4TUNE_OK) return raise_last_error();
  return Py_BuildValue("nn", static_cast<Py_ssize_t>(weight), static_cast<Py_ssize_t>(scales));
}

// select(dispatcher, problem, m) -> (match, config, reason, time_us, fp16_us, floor_us,
// scratch_bytes)
PyObject* select(PyObject* /*self*/, PyObject* const* values, Py_ssize_t count) {
  Arguments arguments("select", values, count, 3);
  const w4tune_dispatcher* const dispatcher = arguments.dispatcher();
  const w4tune_problem problem = arguments.problem();
  const int m = arguments.small();
  if (!arguments.ok()) return nullptr;
  w4tune_selection selection{};
  if (w4tune_select(dispatcher, &problem, m, &selection) != W4TUNE_OK) return raise_last_error();
  return Py_BuildValue("sssfffn", w4tune_match_name(selection.match),
                       w4tune_selection_config(&selection), selection.reason, selection.time_us,
                       selection.fp16_us, selection.floor_us,
                       static_cast<Py_ssize_t>(w4tune_selection_scratch_bytes(&selection)));
}

// launch(dispatcher, problem, x, w, scales, y, m, ldx, dependent, stream) -> match as w4tune_match
PyObject* launch(PyObject* /*self*/, PyObject* const* values, Py_ssize_t count) {
  Arguments arguments("launch", values, count, 10);
  const w4tune_dispatcher* const dispatcher = arguments.dispatcher();
  const w4tune_problem problem = arguments.problem();
  w4tune_operands operands{};
  operands.x = arguments.pointer();
  operands.w = arguments.pointer();
  operands.scales = arguments.pointer();
  operands.y = arguments.pointer();
  operands.m = arguments.small();
  operands.ldx = arguments.integer();
  operands.dependent_launch = arguments.small();
  void* const stream = arguments.pointer();
  if (!arguments.ok()) return nullptr;
  w4tune_selection selection{};
  const w4tune_status status = without_gil([&] {
    const w4tune_status selected = w4tune_select(dispatcher, &problem, operands.m, &selection);
    if (selected != W4TUNE_OK) return selected;
    return w4tune_launch(dispatcher, &selection, &operands, stream);
  });
  if (status != W4TUNE_OK) return raise_last_error();
  return PyLong_FromLong(selection.match);
}

// pack(dispatcher | None for host memory, problem, codes, scales, packed_w, packed_scales, stream)
PyObject* pack(PyObject* /*self*/, PyObject* const* values, Py_ssize_t count) {
  const bool on_host = count > 0 && values[0] == Py_None;
  Arguments arguments("pack", values + (on_host ? 1 : 0), count, 7);
  const w4tune_dispatcher* const dispatcher = on_host ? nullptr : arguments.dispatcher();
  const w4tune_problem problem = arguments.problem();
  const void* const codes = arguments.pointer();
  const void* const scales = arguments.pointer();
  void* const packed_w = arguments.pointer();
  void* const packed_scales = arguments.pointer();
  void* const stream = arguments.pointer();
  if (!arguments.ok()) return nullptr;
  return finish(without_gil([&] {
    if (on_host) {
      return w4tune_pack_weights_host(&problem, codes, scales, W4TUNE_OFFSET8, packed_w,
                                      packed_scales);
    }
    return w4tune_pack_weights_device(dispatcher, &problem, codes, scales, W4TUNE_OFFSET8, packed_w,
                                      packed_scales, stream);
  }));
}

// dequantize(dispatcher | None for host memory, problem, packed_w, packed_scales, w, stream)
PyObject* dequantize(PyObject* /*self*/, PyObject* const* values, Py_ssize_t count) {
  const bool on_host = count > 0 && values[0] == Py_None;
  Arguments arguments("dequantize", values + (on_host ? 1 : 0), count, 6);
  const w4tune_dispatcher* const dispatcher = on_host ? nullptr : arguments.dispatcher();
  const w4tune_problem problem = arguments.problem();
  const void* const packed_w = arguments.pointer();
  const void* const packed_scales = arguments.pointer();
  void* const w = arguments.pointer();
  void* const stream = arguments.pointer();
  if (!arguments.ok()) return nullptr;
  return finish(without_gil([&] {
    if (on_host) return w4tune_dequantize_host(&problem, packed_w, packed_scales, w);
    return w4tune_dequantize_device(dispatcher, &problem, packed_w, packed_scales, w, stream);
  }));
}

// rotate(dispatcher, dtype, x, permutation or 0, blocks, y, m, width, block, ldx, stream)
PyObject* rotate(PyObject* /*self*/, PyObject* const* values, Py_ssize_t count) {
  Arguments arguments("rotate", values, count, 11);
  const w4tune_dispatcher* const dispatcher = arguments.dispatcher();
  w4tune_rotation rotation{};
  rotation.dtype = arguments.small();
  rotation.x = arguments.pointer();
  rotation.permutation = static_cast<const std::int32_t*>(arguments.pointer());
  rotation.blocks = arguments.pointer();
  rotation.y = arguments.pointer();
  rotation.m = arguments.small();
  rotation.width = arguments.small();
  rotation.block = arguments.small();
  rotation.ldx = arguments.integer();
  void* const stream = arguments.pointer();
  if (!arguments.ok()) return nullptr;
  return finish(without_gil([&] { return w4tune_rotate(dispatcher, &rotation, stream); }));
}

using FastCall = PyObject* (*)(PyObject*, PyObject* const*, Py_ssize_t);

PyMethodDef method(const char* name, FastCall function) {
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function)),
          METH_FASTCALL, nullptr};
}

}  // namespace

PyMODINIT_FUNC PyInit__native() {
  static PyMethodDef methods[] = {method("open", open_dispatcher),
                                  method("device_name", device_name),
                                  method("problem", make_problem),
                                  method("packed_sizes", packed_sizes),
                                  method("select", select),
                                  method("launch", launch),
                                  method("pack", pack),
                                  method("dequantize", dequantize),
                                  method("rotate", rotate),
                                  {nullptr, nullptr, 0, nullptr}};
  static PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                                   kExtension,
                                   "The C ABI of libw4tune; see native.cc.",
                                   -1,
                                   methods,
                                   nullptr,
                                   nullptr,
                                   nullptr,
                                   nullptr};
  PyObject* const module = PyModule_Create(&definition);
  if (module == nullptr) return nullptr;
  error_type = PyErr_NewExceptionWithDoc(
      "w4tune.W4tuneError", "What w4tune could not do: what failed, why, and what to do.",
      PyExc_RuntimeError, nullptr);
  if (error_type == nullptr || PyModule_AddObjectRef(module, "W4tuneError", error_type) != 0) {
    Py_DECREF(module);
    return nullptr;
  }
  return module;
}
