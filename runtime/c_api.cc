#include <fmt/format.h>

#include <exception>
#include <new>
#include <string>

#include "w4tune/dispatcher.h"
#include "w4tune/error.h"
#include "w4tune/packing.h"
#include "w4tune/w4tune.h"

struct w4tune_dispatcher {
  w4tune::Dispatcher dispatcher;
};

namespace w4tune {
namespace {

static_assert(W4TUNE_INVALID_ARGUMENT == static_cast<int>(ErrorCode::kInvalidArgument));
static_assert(W4TUNE_NOT_FOUND == static_cast<int>(ErrorCode::kNotFound));
static_assert(W4TUNE_ENVIRONMENT == static_cast<int>(ErrorCode::kEnvironment));
static_assert(W4TUNE_NO_DEVICE == static_cast<int>(ErrorCode::kNoDevice));
static_assert(W4TUNE_DEVICE == static_cast<int>(ErrorCode::kDevice));
static_assert(W4TUNE_DATABASE == static_cast<int>(ErrorCode::kDatabase));
static_assert(W4TUNE_INTERNAL == static_cast<int>(ErrorCode::kInternal));
static_assert(W4TUNE_GEGLU == static_cast<int>(Op::kGeglu));
static_assert(W4TUNE_BF16 == static_cast<int>(Dtype::kBF16));
static_assert(W4TUNE_SIGNED == static_cast<int>(NibbleEncoding::kSigned));
static_assert(W4TUNE_EXACT == static_cast<int>(Match::kExact));
static_assert(W4TUNE_INTERPOLATED_M == static_cast<int>(Match::kInterpolatedM));
static_assert(W4TUNE_SAME_ARCH == static_cast<int>(Match::kSameArch));
static_assert(W4TUNE_PREDICTED == static_cast<int>(Match::kPredicted));
static_assert(W4TUNE_DEFAULT == static_cast<int>(Match::kDefault));
static_assert(W4TUNE_REFUSED == static_cast<int>(Match::kRefused));

std::string& last_error() {
  thread_local std::string message;
  return message;
}

w4tune_status fail(ErrorCode code, const char* message) noexcept {
  try {
    last_error() = message;
  } catch (...) {  // no memory for the words: the code must do
    last_error().clear();
  }
  return static_cast<w4tune_status>(code);
}

// Runs `action`; exceptions become codes here and go no further.
template <class Action>
w4tune_status guarded(const Action& action) noexcept {
  try {
    action();
    return W4TUNE_OK;
  } catch (const Error& error) {
    return fail(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kEnvironment, "out of host memory. Free some.");
  } catch (const std::exception& error) {
    return fail(ErrorCode::kInternal, error.what());
  } catch (...) {
    return fail(ErrorCode::kInternal, "an unknown exception: a defect of w4tune. Report it.");
  }
}

template <class T>
T& required(T* pointer, const char* call, const char* name) {
  if (pointer != nullptr) return *pointer;
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("{}: {} is NULL. Pass a valid pointer.", call, name));
}

template <class Enum>
Enum checked_enum(int value, Enum last, const char* call, const char* name) {
  if (value >= 0 && value <= static_cast<int>(last)) return static_cast<Enum>(value);
  throw Error(ErrorCode::kInvalidArgument, fmt::format("{}: {} = {} must be from 0 to {}.", call,
                                                       name, value, static_cast<int>(last)));
}

Problem to_problem(const w4tune_problem* problem, const char* call) {
  const w4tune_problem& p = required(problem, call, "problem");
  return {.op = checked_enum(p.op, Op::kGeglu, call, "problem.op"),
          .n = p.n,
          .k = p.k,
          .group_size = p.group_size,
          .dtype = checked_enum(p.dtype, Dtype::kBF16, call, "problem.dtype")};
}

UnpackedWeight to_weight(const void* nibbles, const void* scales, int encoding, const char* call) {
  return {.nibbles = nibbles,
          .scales = scales,
          .encoding = checked_enum(encoding, NibbleEncoding::kSigned, call, "encoding")};
}

Selection to_selection(const w4tune_selection& selection) {
  Selection result;
  result.kernel = static_cast<const TunedKernel*>(selection.kernel);
  result.match = static_cast<Match>(selection.match);
  result.reason = selection.reason == nullptr ? "" : selection.reason;
  result.n = selection.n;
  result.k = selection.k;
  return result;
}

}  // namespace
}  // namespace w4tune

using w4tune::guarded;
using w4tune::required;

w4tune_status w4tune_open(const char* path, int device, const char* device_name,
                          w4tune_dispatcher** dispatcher) {
  return guarded([&] {
    w4tune_dispatcher*& out = required(dispatcher, "w4tune_open", "dispatcher");
    w4tune::OpenOptions options;
    options.device = device;
    if (device_name != nullptr) options.device_name = device_name;
    out = new w4tune_dispatcher{
        w4tune::Dispatcher::open(&required(path, "w4tune_open", "path"), options)};
  });
}

w4tune_status w4tune_open_with_defaults(const char* path, const char* defaults_path, int device,
                                        w4tune_dispatcher** dispatcher) {
  return guarded([&] {
    constexpr const char* kCall = "w4tune_open_with_defaults";
    w4tune_dispatcher*& out = required(dispatcher, kCall, "dispatcher");
    w4tune::OpenOptions options;
    options.device = device;
    options.defaults_path = &required(defaults_path, kCall, "defaults_path");
    out = new w4tune_dispatcher{w4tune::Dispatcher::open(path == nullptr ? "" : path, options)};
  });
}

w4tune_status w4tune_open_with_limit(const char* path, int device, size_t max_scratch_bytes,
                                     w4tune_dispatcher** dispatcher) {
  return guarded([&] {
    constexpr const char* kCall = "w4tune_open_with_limit";
    w4tune_dispatcher*& out = required(dispatcher, kCall, "dispatcher");
    w4tune::OpenOptions options;
    options.device = device;
    options.max_scratch_bytes = max_scratch_bytes;
    out = new w4tune_dispatcher{w4tune::Dispatcher::open(&required(path, kCall, "path"), options)};
  });
}

void w4tune_close(w4tune_dispatcher* dispatcher) { delete dispatcher; }

const char* w4tune_device_name(const w4tune_dispatcher* dispatcher) {
  return dispatcher == nullptr ? "" : dispatcher->dispatcher.device_name().c_str();
}

double w4tune_dram_gbps(const w4tune_dispatcher* dispatcher) {
  return dispatcher == nullptr ? 0.0 : dispatcher->dispatcher.dram_gbps();
}

w4tune_status w4tune_select(const w4tune_dispatcher* dispatcher, const w4tune_problem* problem,
                            int m, w4tune_selection* selection) {
  return guarded([&] {
    constexpr const char* kCall = "w4tune_select";
    w4tune_selection& out = required(selection, kCall, "selection");
    const w4tune::Selection found = required(dispatcher, kCall, "dispatcher")
                                        .dispatcher.select(w4tune::to_problem(problem, kCall), m);
    out = {found.kernel,  static_cast<int>(found.match),
           found.reason,  found.n,
           found.k,       found.time_us,
           found.fp16_us, found.floor_us};
  });
}

const char* w4tune_selection_config(const w4tune_selection* selection) {
  return selection == nullptr ? "" : w4tune::to_selection(*selection).config();
}

size_t w4tune_selection_scratch_bytes(const w4tune_selection* selection) {
  return selection == nullptr ? 0 : w4tune::to_selection(*selection).scratch_bytes();
}

w4tune_status w4tune_launch(const w4tune_dispatcher* dispatcher, const w4tune_selection* selection,
                            const w4tune_operands* operands, void* stream) {
  return guarded([&] {
    constexpr const char* kCall = "w4tune_launch";
    const w4tune_operands& o = required(operands, kCall, "operands");
    required(dispatcher, kCall, "dispatcher")
        .dispatcher.launch(w4tune::to_selection(required(selection, kCall, "selection")),
                           {.x = o.x,
                            .w = o.w,
                            .scales = o.scales,
                            .y = o.y,
                            .m = o.m,
                            .ldx = o.ldx,
                            .ldy = o.ldy,
                            .dependent_launch = o.dependent_launch != 0},
                           static_cast<w4tune::CudaStream>(stream));
  });
}

w4tune_status w4tune_packed_sizes(const w4tune_problem* problem, size_t* weight_bytes,
                                  size_t* scale_bytes) {
  return guarded([&] {
    constexpr const char* kCall = "w4tune_packed_sizes";
    size_t& weight = required(weight_bytes, kCall, "weight_bytes");
    size_t& scale = required(scale_bytes, kCall, "scale_bytes");
    const w4tune::Problem checked = w4tune::to_problem(problem, kCall);
    weight = w4tune::packed_weight_bytes(checked);
    scale = w4tune::packed_scale_bytes(checked);
  });
}

w4tune_status w4tune_pack_weights_host(const w4tune_problem* problem, const void* nibbles,
                                       const void* scales, int encoding, void* packed_w,
                                       void* packed_scales) {
  return guarded([&] {
    constexpr const char* kCall = "w4tune_pack_weights_host";
    w4tune::pack_weights(w4tune::to_problem(problem, kCall),
                         w4tune::to_weight(nibbles, scales, encoding, kCall), packed_w,
                         packed_scales);
  });
}

w4tune_status w4tune_pack_weights_device(const w4tune_dispatcher* dispatcher,
                                         const w4tune_problem* problem, const void* nibbles,
                                         const void* scales, int encoding, void* packed_w,
                                         void* packed_scales, void* stream) {
  return guarded([&] {
    constexpr const char* kCall = "w4tune_pack_weights_device";
    required(dispatcher, kCall, "dispatcher")
        .dispatcher.pack_weights(w4tune::to_problem(problem, kCall),
                                 w4tune::to_weight(nibbles, scales, encoding, kCall), packed_w,
                                 packed_scales, static_cast<w4tune::CudaStream>(stream));
  });
}

w4tune_status w4tune_dequantize_host(const w4tune_problem* problem, const void* packed_w,
                                     const void* packed_scales, void* w) {
  return guarded([&] {
    w4tune::dequantize_weights(w4tune::to_problem(problem, "w4tune_dequantize_host"), packed_w,
                               packed_scales, w);
  });
}

w4tune_status w4tune_dequantize_device(const w4tune_dispatcher* dispatcher,
                                       const w4tune_problem* problem, const void* packed_w,
                                       const void* packed_scales, void* w, void* stream) {
  return guarded([&] {
    constexpr const char* kCall = "w4tune_dequantize_device";
    required(dispatcher, kCall, "dispatcher")
        .dispatcher.dequantize(w4tune::to_problem(problem, kCall), packed_w, packed_scales, w,
                               static_cast<w4tune::CudaStream>(stream));
  });
}

w4tune_status w4tune_activate(const w4tune_dispatcher* dispatcher, int dtype, const void* h,
                              void* y, int m, int n, void* stream) {
  return guarded([&] {
    constexpr const char* kCall = "w4tune_activate";
    required(dispatcher, kCall, "dispatcher")
        .dispatcher.activate(w4tune::checked_enum(dtype, w4tune::Dtype::kBF16, kCall, "dtype"), h,
                             y, m, n, static_cast<w4tune::CudaStream>(stream));
  });
}

w4tune_status w4tune_rotate(const w4tune_dispatcher* dispatcher, const w4tune_rotation* rotation,
                            void* stream) {
  return guarded([&] {
    constexpr const char* kCall = "w4tune_rotate";
    const w4tune_rotation& r = required(rotation, kCall, "rotation");
    required(dispatcher, kCall, "dispatcher")
        .dispatcher.rotate(
            {.x = r.x,
             .permutation = r.permutation,
             .blocks = r.blocks,
             .y = r.y,
             .m = r.m,
             .width = r.width,
             .block = r.block,
             .ldx = r.ldx,
             .dtype = w4tune::checked_enum(r.dtype, w4tune::Dtype::kBF16, kCall, "rotation.dtype")},
            static_cast<w4tune::CudaStream>(stream));
  });
}

const char* w4tune_last_error(void) { return w4tune::last_error().c_str(); }

int w4tune_abi_version(void) { return W4TUNE_ABI_VERSION; }

const char* w4tune_match_name(int match) {
  if (match < W4TUNE_EXACT || match > W4TUNE_REFUSED) return "unknown";
  return w4tune::match_name(static_cast<w4tune::Match>(match));
}
