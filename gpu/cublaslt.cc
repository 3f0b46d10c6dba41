#include "gpu/cublaslt.h"

#include <cublasLt.h>
#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <exception>
#include <map>
#include <mutex>
#include <string_view>
#include <utility>

#include "core/check.h"
#include "gpu/driver.h"
#include "gpu/shared_library.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

constexpr std::string_view kWhat = "cuBLASLt";
constexpr std::string_view kRemedy =
    "Install the CUDA toolkit (12 or newer), or name the folder of its libraries.";

constexpr const char* kLayoutCall = "cublasLtMatrixLayoutCreate";

bool is_aligned(const void* address, std::uint32_t alignment) {
  return reinterpret_cast<std::uintptr_t>(address) % alignment == 0;
}

}  // namespace

struct CublasLt::Library {
  SharedLibrary library;
  decltype(&::cublasLtGetVersion) get_version;
  decltype(&::cublasLtGetStatusString) get_status_string;
  decltype(&::cublasLtCreate) create;
  decltype(&::cublasLtMatmulDescCreate) desc_create;
  decltype(&::cublasLtMatmulDescDestroy) desc_destroy;
  decltype(&::cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&::cublasLtMatrixLayoutCreate) layout_create;
  decltype(&::cublasLtMatrixLayoutDestroy) layout_destroy;
  decltype(&::cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&::cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&::cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&::cublasLtMatmulAlgoGetHeuristic) get_heuristic;
  decltype(&::cublasLtMatmulAlgoConfigGetAttribute) algo_get;
  decltype(&::cublasLtMatmul) matmul;

  explicit Library(SharedLibrary opened) : library(std::move(opened)) {
    load(get_version, "cublasLtGetVersion");
    load(get_status_string, "cublasLtGetStatusString");
    load(create, "cublasLtCreate");
    load(desc_create, "cublasLtMatmulDescCreate");
    load(desc_destroy, "cublasLtMatmulDescDestroy");
    load(desc_set, "cublasLtMatmulDescSetAttribute");
    load(layout_create, "cublasLtMatrixLayoutCreate");
    load(layout_destroy, "cublasLtMatrixLayoutDestroy");
    load(preference_create, "cublasLtMatmulPreferenceCreate");
    load(preference_destroy, "cublasLtMatmulPreferenceDestroy");
    load(preference_set, "cublasLtMatmulPreferenceSetAttribute");
    load(get_heuristic, "cublasLtMatmulAlgoGetHeuristic");
    load(algo_get, "cublasLtMatmulAlgoConfigGetAttribute");
    load(matmul, "cublasLtMatmul");
  }

  void check(cublasStatus_t status, const char* call) const {
    if (status == CUBLAS_STATUS_SUCCESS) return;
    throw Error(ErrorCode::kDevice,
                fmt::format("{} failed: {}. Run w4tune doctor.", call, get_status_string(status)));
  }

  // One handle for each GPU, made in the context that is current at its first product. Never
  // destroyed: the context may be gone by then.
  cublasLtHandle_t handle() {
    CUdevice device = 0;
    w4tune::check(driver().ctx_get_device(&device), "cuCtxGetDevice");
    const std::lock_guard lock(handle_mutex_);
    cublasLtHandle_t& handle = handles_[device];
    if (handle == nullptr) check(create(&handle), "cublasLtCreate");
    return handle;
  }

 private:
  template <typename T>
  void load(T& function, const char* name) {
    function = library.symbol<T>(name);
  }

  std::mutex handle_mutex_;
  std::map<CUdevice, cublasLtHandle_t> handles_;
};

CublasLt::CublasLt()
    : library_(std::make_unique<Library>(
          SharedLibrary::open(toolkit_candidates("libcublasLt"), kWhat, kRemedy, true))) {}

CublasLt::~CublasLt() = default;

const CublasLt& CublasLt::get() {
  static const CublasLt* const cublaslt = new CublasLt;
  return *cublaslt;
}

bool CublasLt::available() noexcept {
  try {
    get();
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

std::string CublasLt::version() const {
  const std::size_t version = library_->get_version();
  // 12.x counts major * 10000 + minor * 100 + patch.
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

void CublasLt::prepare() const { library_->handle(); }

struct CublasLtGemm::State {
  CublasLt::Library& lt;
  cublasLtHandle_t handle;
  CublasLtProduct product;
  cublasLtMatmulDesc_t desc = nullptr;
  // cuBLASLt is column-major: a row-major matrix is its own transpose there. So the product is
  // y^T [n, m] = (w^T)^T * x^T, with w^T [k, n] as operand A and x^T [k, m] as operand B.
  cublasLtMatrixLayout_t w_layout = nullptr;
  cublasLtMatrixLayout_t x_layout = nullptr;
  cublasLtMatrixLayout_t y_layout = nullptr;
  std::array<cublasLtMatmulHeuristicResult_t, kMostAlgorithms> algorithms{};
  int count = 0;

  State(CublasLt::Library& library, const CublasLtProduct& wanted)
      : lt(library), handle(library.handle()), product(wanted) {
    if (product.ldx == 0) product.ldx = product.k;
    if (product.ldy == 0) product.ldy = product.n;
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    if (y_layout != nullptr) lt.layout_destroy(y_layout);
    if (x_layout != nullptr) lt.layout_destroy(x_layout);
    if (w_layout != nullptr) lt.layout_destroy(w_layout);
    if (desc != nullptr) lt.desc_destroy(desc);
  }

  void describe_product() {
    const cudaDataType_t type = product.dtype == Dtype::kF16 ? CUDA_R_16F : CUDA_R_16BF;
    const auto rows = static_cast<std::uint64_t>(product.m);
    const auto width = static_cast<std::uint64_t>(product.n);
    const auto depth = static_cast<std::uint64_t>(product.k);
    const cublasOperation_t transpose = CUBLAS_OP_T;
    lt.check(lt.desc_create(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
    lt.check(lt.desc_set(desc, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof(transpose)),
             "cublasLtMatmulDescSetAttribute");
    lt.check(lt.layout_create(&w_layout, type, depth, width, product.k), kLayoutCall);
    lt.check(lt.layout_create(&x_layout, type, depth, rows, product.ldx), kLayoutCall);
    lt.check(lt.layout_create(&y_layout, type, width, rows, product.ldy), kLayoutCall);
  }

  // Keeps the results that the heuristic itself says can run.
  void ask_heuristic() {
    cublasLtMatmulPreference_t preference = nullptr;
    lt.check(lt.preference_create(&preference), "cublasLtMatmulPreferenceCreate");
    const std::uint64_t workspace_bytes = product.workspace_bytes;
    int returned = 0;
    cublasStatus_t status = lt.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                              &workspace_bytes, sizeof(workspace_bytes));
    for (const auto operand :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
      if (status != CUBLAS_STATUS_SUCCESS) break;
      status =
          lt.preference_set(preference, operand, &product.alignment, sizeof(product.alignment));
    }
    if (status == CUBLAS_STATUS_SUCCESS) {
      status = lt.get_heuristic(handle, desc, w_layout, x_layout, y_layout, y_layout, preference,
                                kMostAlgorithms, algorithms.data(), &returned);
    }
    lt.preference_destroy(preference);
    lt.check(status, "cublasLtMatmulAlgoGetHeuristic");
    for (int i = 0; i < returned; ++i) {
      const auto& found = algorithms[static_cast<std::size_t>(i)];
      if (found.state == CUBLAS_STATUS_SUCCESS)
        algorithms[static_cast<std::size_t>(count++)] = found;
    }
  }

  [[nodiscard]] const cublasLtMatmulHeuristicResult_t& at(int algorithm) const {
    W4_CHECK(algorithm >= 0 && algorithm < count, "no such algorithm of the CublasLtGemm");
    return algorithms[static_cast<std::size_t>(algorithm)];
  }

  // One attribute of an algorithm; 0 where this version of cuBLASLt does not know it.
  template <typename T>
  [[nodiscard]] T attribute(int algorithm, cublasLtMatmulAlgoConfigAttributes_t which) const {
    T value{};
    std::size_t written = 0;
    const cublasStatus_t status =
        lt.algo_get(&at(algorithm).algo, which, &value, sizeof(value), &written);
    return status == CUBLAS_STATUS_SUCCESS ? value : T{};
  }
};

CublasLtGemm::CublasLtGemm(const CublasLtProduct& product)
    : state_(std::make_unique<State>(*CublasLt::get().library_, product)) {
  state_->describe_product();
  state_->ask_heuristic();
  if (state_->count == 0) {
    throw Error(
        ErrorCode::kDevice,
        fmt::format("no cuBLASLt algorithm for m={} n={} k={}: the heuristic returned none. "
                    "Update the CUDA toolkit.",
                    product.m, product.n, product.k));
  }
}

CublasLtGemm::CublasLtGemm(CublasLtGemm&& other) noexcept = default;
CublasLtGemm& CublasLtGemm::operator=(CublasLtGemm&& other) noexcept = default;
CublasLtGemm::~CublasLtGemm() = default;

int CublasLtGemm::size() const { return state_->count; }

std::string CublasLtGemm::describe(int algorithm) const {
  const State& state = *state_;
  return fmt::format(
      "algo={} tile={} stages={} split_k={} cluster={} workspace={}",
      state.attribute<std::int32_t>(algorithm, CUBLASLT_ALGO_CONFIG_ID),
      state.attribute<std::uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_TILE_ID),
      state.attribute<std::uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_STAGES_ID),
      state.attribute<std::int32_t>(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM),
      state.attribute<std::uint16_t>(algorithm, CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID),
      state.at(algorithm).workspaceSize);
}

void CublasLtGemm::run(int algorithm, const void* x, const void* w, void* y, void* workspace,
                       CUstream stream) const {
  const State& state = *state_;
  const std::uint32_t alignment = state.product.alignment;
  W4_CHECK(is_aligned(x, alignment) && is_aligned(w, alignment) && is_aligned(y, alignment),
           "operands must be as aligned as the product says");
  const float alpha = 1.0F;
  const float beta = 0.0F;
  state.lt.check(
      state.lt.matmul(state.handle, state.desc, &alpha, w, state.w_layout, x, state.x_layout, &beta,
                      y, state.y_layout, y, state.y_layout, &state.at(algorithm).algo, workspace,
                      state.product.workspace_bytes, stream),
      "cublasLtMatmul");
}

}  // namespace w4tune
