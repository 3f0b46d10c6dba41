// Nvrtc: CUDA's run-time compiler, opened at run time. Needs no GPU, no driver and no include path.
// Lives until the program ends; any number of threads may compile at once.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "core/compilation.h"

namespace w4tune {

class Nvrtc {
 public:
  // Throws Error{kEnvironment} where the library is missing or older than CUDA 12; then the next
  // call tries again.
  static const Nvrtc& get();

  // A folder to look in first for libraries of the toolkit, cuBLASLt included; before the first
  // use.
  static void search_in(std::string folder);

  // "13.0"
  [[nodiscard]] std::string version() const;

  // The file that was opened.
  [[nodiscard]] std::string path() const;

  // The key that compile() gives, without compiling.
  [[nodiscard]] std::string compile_key(const std::string& source, std::span<const Header> headers,
                                        const std::string& arch) const;

  // Compiles C++17 to a cubin for arch "sm_86", or to PTX text for "compute_86" (then in
  // Compilation::cubin, with no resources known). A source that does not compile gives a
  // Compilation without a cubin and with the compiler's log; a broken compiler throws
  // Error{kEnvironment}.
  [[nodiscard]] Compilation compile(const std::string& source, std::span<const Header> headers,
                                    const std::string& arch) const;

  Nvrtc(const Nvrtc&) = delete;
  Nvrtc& operator=(const Nvrtc&) = delete;
  ~Nvrtc();

 private:
  struct Library;
  class Program;

  Nvrtc();

  std::unique_ptr<Library> library_;
};

}  // namespace w4tune
