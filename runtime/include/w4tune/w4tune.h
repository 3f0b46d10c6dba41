/* The C ABI of w4tune: C99, for other languages. Meanings are those of w4tune/dispatcher.h and
 * w4tune/packing.h.
 *
 * Functions return W4TUNE_OK or an error code; then w4tune_last_error() says what failed, why and
 * what to do, and outputs are untouched. Any thread may call anything but w4tune_close at any time.
 * Strings belong to the library. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "w4tune/export.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Raised when a struct, a value or a function here changes its meaning, not when functions come
 * along: a caller that loads the library at run time compares it with w4tune_abi_version(). */
#define W4TUNE_ABI_VERSION 2

typedef enum w4tune_status {
  W4TUNE_OK = 0,
  W4TUNE_INVALID_ARGUMENT = 1,
  W4TUNE_NOT_FOUND = 2,
  W4TUNE_ENVIRONMENT = 3,
  W4TUNE_NO_DEVICE = 4,
  W4TUNE_DEVICE = 5,
  W4TUNE_DATABASE = 6,
  W4TUNE_INTERNAL = 7
} w4tune_status;

typedef enum w4tune_op { W4TUNE_GEMM = 0, W4TUNE_GEGLU = 1 } w4tune_op;
typedef enum w4tune_dtype { W4TUNE_F16 = 0, W4TUNE_BF16 = 1 } w4tune_dtype;
typedef enum w4tune_encoding { W4TUNE_OFFSET8 = 0, W4TUNE_SIGNED = 1 } w4tune_encoding;

typedef enum w4tune_match {
  W4TUNE_EXACT = 0,
  W4TUNE_INTERPOLATED_M = 1,
  W4TUNE_SAME_ARCH = 2,
  W4TUNE_PREDICTED = 3,
  W4TUNE_DEFAULT = 4,
  W4TUNE_REFUSED = 5
} w4tune_match;

typedef struct w4tune_dispatcher w4tune_dispatcher;

typedef struct w4tune_problem {
  int op; /* w4tune_op */
  int n;  /* width of y */
  int k;  /* depth */
  int group_size;
  int dtype; /* w4tune_dtype */
} w4tune_problem;

/* Valid as long as its dispatcher. */
typedef struct w4tune_selection {
  const void* kernel; /* NULL: refused */
  int match;          /* w4tune_match */
  const char* reason; /* why it is refused; "" otherwise */
  int n;              /* of the problem asked for */
  int k;
  float time_us;  /* where it was tuned, see Selection in w4tune/dispatcher.h */
  float fp16_us;  /* 0: not measured */
  float floor_us; /* lower bound by bandwidth and matrix rate */
} w4tune_selection;

typedef struct w4tune_operands {
  const void* x;
  const void* w;
  const void* scales;
  void* y;
  int m;
  int64_t ldx; /* 0: k */
  int64_t ldy; /* 0: n */
  /* 1: programmatic dependent launch, see LaunchOperands in w4tune/dispatcher.h */
  int dependent_launch;
} w4tune_operands;

/* See Rotation in w4tune/dispatcher.h. */
typedef struct w4tune_rotation {
  const void* x;
  const int32_t* permutation;
  const void* blocks;
  void* y;
  int m;
  int width;
  int block;
  int64_t ldx;
  int dtype; /* w4tune_dtype */
} w4tune_rotation;

/* The W4TUNE_ABI_VERSION that the library was built with. */
W4TUNE_API int w4tune_abi_version(void);

/* device: CUDA ordinal or -1. device_name: NULL, or the GPU whose rows to load for looking only. */
W4TUNE_API w4tune_status w4tune_open(const char* path, int device, const char* device_name,
                                     w4tune_dispatcher** dispatcher);
/* With a file of kernels that serve any N and K for what `path` lacks; path may be NULL then. */
W4TUNE_API w4tune_status w4tune_open_with_defaults(const char* path, const char* defaults_path,
                                                   int device, w4tune_dispatcher** dispatcher);
/* What is served by dequantising and cuBLASLt gets a scratch of at most so many bytes; 0 forbids
 * it, and kernels serve. The other ways to open set no limit but that of the tuner. */
W4TUNE_API w4tune_status w4tune_open_with_limit(const char* path, int device,
                                                size_t max_scratch_bytes,
                                                w4tune_dispatcher** dispatcher);
/* NULL is fine. */
W4TUNE_API void w4tune_close(w4tune_dispatcher* dispatcher);

/* The GPU whose rows serve; "" for NULL. */
W4TUNE_API const char* w4tune_device_name(const w4tune_dispatcher* dispatcher);
/* Memory bandwidth of the GPU that is served, in GB/s; 0 for NULL and without a GPU. */
W4TUNE_API double w4tune_dram_gbps(const w4tune_dispatcher* dispatcher);

/* A refusal is no error: see selection->match. */
W4TUNE_API w4tune_status w4tune_select(const w4tune_dispatcher* dispatcher,
                                       const w4tune_problem* problem, int m,
                                       w4tune_selection* selection);
/* "" for NULL and for a refused selection. */
W4TUNE_API const char* w4tune_selection_config(const w4tune_selection* selection);

/* Above 0: served by dequantising into a scratch of so many bytes, and cuBLASLt. 0: by a kernel. */
W4TUNE_API size_t w4tune_selection_scratch_bytes(const w4tune_selection* selection);

/* stream: a cudaStream_t or CUstream. */
W4TUNE_API w4tune_status w4tune_launch(const w4tune_dispatcher* dispatcher,
                                       const w4tune_selection* selection,
                                       const w4tune_operands* operands, void* stream);

W4TUNE_API w4tune_status w4tune_packed_sizes(const w4tune_problem* problem, size_t* weight_bytes,
                                             size_t* scale_bytes);
/* encoding: w4tune_encoding. */
W4TUNE_API w4tune_status w4tune_pack_weights_host(const w4tune_problem* problem,
                                                  const void* nibbles, const void* scales,
                                                  int encoding, void* packed_w,
                                                  void* packed_scales);
W4TUNE_API w4tune_status w4tune_pack_weights_device(const w4tune_dispatcher* dispatcher,
                                                    const w4tune_problem* problem,
                                                    const void* nibbles, const void* scales,
                                                    int encoding, void* packed_w,
                                                    void* packed_scales, void* stream);

W4TUNE_API w4tune_status w4tune_dequantize_host(const w4tune_problem* problem, const void* packed_w,
                                                const void* packed_scales, void* w);
W4TUNE_API w4tune_status w4tune_dequantize_device(const w4tune_dispatcher* dispatcher,
                                                  const w4tune_problem* problem,
                                                  const void* packed_w, const void* packed_scales,
                                                  void* w, void* stream);
W4TUNE_API w4tune_status w4tune_activate(const w4tune_dispatcher* dispatcher, int dtype,
                                         const void* h, void* y, int m, int n, void* stream);
W4TUNE_API w4tune_status w4tune_rotate(const w4tune_dispatcher* dispatcher,
                                       const w4tune_rotation* rotation, void* stream);

/* Of the last call that failed on this thread; "" before the first. Valid until the next failure.
 */
W4TUNE_API const char* w4tune_last_error(void);
/* "exact", "interpolated_m", ...; "unknown" for another number. */
W4TUNE_API const char* w4tune_match_name(int match);

#ifdef __cplusplus
} /* extern "C" */
#endif
