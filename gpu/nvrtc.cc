#include "gpu/nvrtc.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <nvrtc.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>
#include <utility>
#include <vector>

#include "core/hash.h"
#include "gpu/shared_library.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

constexpr int kOldestMajor = 12;
constexpr const char* kSourceName = "w4_kernel.cu";
constexpr std::string_view kWhat = "the CUDA run-time compiler (NVRTC)";
constexpr std::string_view kRemedy =
    "Install the CUDA toolkit (12 or newer), or name the folder of its libraries.";

// ptxas reports registers, spills and static shared memory in the log.
using Options = std::array<std::string, 4>;

Options options_for(const std::string& arch) {
  return {"--gpu-architecture=" + arch, "-std=c++17", "-default-device", "--ptxas-options=-v"};
}

// The number that ends right before `label` in `line`, e.g. 8 for "4 bytes, 8 registers"; else 0.
int number_before(std::string_view line, std::string_view label) {
  const std::size_t end = line.find(label);
  if (end == std::string_view::npos) return 0;
  std::size_t begin = end;
  while (begin > 0 && line[begin - 1] >= '0' && line[begin - 1] <= '9') --begin;
  int value = 0;
  std::from_chars(line.data() + begin, line.data() + end, value);
  return value;
}

// Reads ptxas's lines, as these:
//   0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
//   ptxas info : Used 22 registers, used 0 barriers, 512 bytes smem, 380 bytes cmem[0]
void read_resources(Compilation& compilation) {
  std::string_view rest = compilation.log;
  while (!rest.empty()) {
    const std::size_t length = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, length);
    rest.remove_prefix(std::min(length + 1, rest.size()));
    compilation.registers = std::max(compilation.registers, number_before(line, " registers"));
    compilation.static_smem_bytes =
        std::max(compilation.static_smem_bytes, number_before(line, " bytes smem"));
    compilation.spill_bytes +=
        number_before(line, " bytes spill stores") + number_before(line, " bytes spill loads");
  }
}

}  // namespace

struct Nvrtc::Library {
  SharedLibrary library;
  decltype(&::nvrtcVersion) version;
  decltype(&::nvrtcGetErrorString) get_error_string;
  decltype(&::nvrtcCreateProgram) create_program;
  decltype(&::nvrtcDestroyProgram) destroy_program;
  decltype(&::nvrtcCompileProgram) compile_program;
  decltype(&::nvrtcGetCUBINSize) get_cubin_size;
  decltype(&::nvrtcGetCUBIN) get_cubin;
  decltype(&::nvrtcGetPTXSize) get_ptx_size;
  decltype(&::nvrtcGetPTX) get_ptx;
  decltype(&::nvrtcGetProgramLogSize) get_log_size;
  decltype(&::nvrtcGetProgramLog) get_log;
  int major = 0;
  int minor = 0;

  explicit Library(SharedLibrary opened)
      : library(std::move(opened)),
        version(library.symbol<decltype(version)>("nvrtcVersion")),
        get_error_string(library.symbol<decltype(get_error_string)>("nvrtcGetErrorString")),
        create_program(library.symbol<decltype(create_program)>("nvrtcCreateProgram")),
        destroy_program(library.symbol<decltype(destroy_program)>("nvrtcDestroyProgram")),
        compile_program(library.symbol<decltype(compile_program)>("nvrtcCompileProgram")),
        get_cubin_size(library.symbol<decltype(get_cubin_size)>("nvrtcGetCUBINSize")),
        get_cubin(library.symbol<decltype(get_cubin)>("nvrtcGetCUBIN")),
        get_ptx_size(library.symbol<decltype(get_ptx_size)>("nvrtcGetPTXSize")),
        get_ptx(library.symbol<decltype(get_ptx)>("nvrtcGetPTX")),
        get_log_size(library.symbol<decltype(get_log_size)>("nvrtcGetProgramLogSize")),
        get_log(library.symbol<decltype(get_log)>("nvrtcGetProgramLog")) {
    check(version(&major, &minor), "nvrtcVersion");
  }

  void check(nvrtcResult result, const char* call) const {
    if (result == NVRTC_SUCCESS) return;
    throw Error(ErrorCode::kEnvironment, fmt::format("cannot use {}: {}: {}. {}", kWhat, call,
                                                     get_error_string(result), kRemedy));
  }

  // NVRTC opens its builtins by bare name, which finds nothing when NVRTC itself was opened by path
  // from a folder the loader does not know. A library of that name that is already loaded is found.
  // Where this one is missing too, the first compilation says so.
  void open_builtins() const {
    const std::size_t slash = library.path().rfind('/');
    if (slash == std::string::npos) return;
    const std::string path =
        fmt::format("{}/libnvrtc-builtins.so.{}.{}", library.path().substr(0, slash), major, minor);
    dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  }
};

// Owns an nvrtcProgram.
class Nvrtc::Program {
 public:
  Program(const Library& library, const std::string& source, std::span<const Header> headers)
      : library_(library) {
    std::vector<const char*> texts;
    std::vector<const char*> names;
    for (const Header& header : headers) {
      texts.push_back(header.text.c_str());
      names.push_back(header.name.c_str());
    }
    library_.check(
        library_.create_program(&program_, source.c_str(), kSourceName,
                                static_cast<int>(headers.size()), texts.data(), names.data()),
        "nvrtcCreateProgram");
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program() { library_.destroy_program(&program_); }

  nvrtcResult compile(const std::string& arch) {
    const Options options = options_for(arch);
    std::array<const char*, std::tuple_size_v<Options>> words{};
    std::transform(options.begin(), options.end(), words.begin(),
                   [](const std::string& option) { return option.c_str(); });
    return library_.compile_program(program_, static_cast<int>(words.size()), words.data());
  }

  // Fetches one of the program's outputs by its pair of NVRTC functions.
  [[nodiscard]] std::string output(decltype(&::nvrtcGetCUBINSize) size_of,
                                   decltype(&::nvrtcGetCUBIN) get, const char* call) const {
    std::size_t size = 0;
    library_.check(size_of(program_, &size), call);
    std::string bytes(size, '\0');
    library_.check(get(program_, bytes.data()), call);
    return bytes;
  }

 private:
  const Library& library_;
  nvrtcProgram program_ = nullptr;
};

Nvrtc::Nvrtc()
    : library_(std::make_unique<Library>(
          SharedLibrary::open(toolkit_candidates("libnvrtc"), kWhat, kRemedy))) {
  if (library_->major < kOldestMajor) {
    throw Error(ErrorCode::kEnvironment, fmt::format("cannot use {}: {} is version {}. {}", kWhat,
                                                     path(), version(), kRemedy));
  }
  library_->open_builtins();
}

Nvrtc::~Nvrtc() = default;

const Nvrtc& Nvrtc::get() {
  // Kept until the program ends: a thread may still compile when main returns.
  static const Nvrtc* const nvrtc = new Nvrtc;
  return *nvrtc;
}

void Nvrtc::search_in(std::string folder) { search_toolkit_in(std::move(folder)); }

std::string Nvrtc::version() const {
  return fmt::format("{}.{}", library_->major, library_->minor);
}

std::string Nvrtc::path() const { return library_->library.path(); }

std::string Nvrtc::compile_key(const std::string& source, std::span<const Header> headers,
                               const std::string& arch) const {
  // Each part goes in with its length, so that no two inputs give the same text.
  std::string text;
  const auto append = [&text](std::string_view part) {
    text += fmt::format("{}:", part.size());
    text += part;
  };
  append(version());
  for (const std::string& option : options_for(arch)) append(option);
  append(source);
  for (const Header& header : headers) {
    append(header.name);
    append(header.text);
  }
  return sha256_hex(text);
}

Compilation Nvrtc::compile(const std::string& source, std::span<const Header> headers,
                           const std::string& arch) const {
  const bool to_ptx = arch.starts_with("compute_");
  Compilation compilation;
  compilation.key = compile_key(source, headers, arch);
  compilation.arch = arch;

  Program program(*library_, source, headers);
  const nvrtcResult result = program.compile(arch);
  compilation.log = program.output(library_->get_log_size, library_->get_log, "nvrtcGetProgramLog");
  while (!compilation.log.empty() &&
         (compilation.log.back() == '\0' || compilation.log.back() == '\n')) {
    compilation.log.pop_back();
  }
  if (result == NVRTC_ERROR_COMPILATION || result == NVRTC_ERROR_INVALID_OPTION) {
    if (compilation.log.empty()) compilation.log = library_->get_error_string(result);
    return compilation;
  }
  library_->check(result, "nvrtcCompileProgram");

  if (to_ptx) {
    compilation.cubin = program.output(library_->get_ptx_size, library_->get_ptx, "nvrtcGetPTX");
    if (!compilation.cubin.empty()) compilation.cubin.pop_back();  // NVRTC counts the final NUL
  } else {
    compilation.cubin =
        program.output(library_->get_cubin_size, library_->get_cubin, "nvrtcGetCUBIN");
    read_resources(compilation);
  }
  return compilation;
}

}  // namespace w4tune
