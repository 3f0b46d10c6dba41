// SharedLibrary: a library opened at run time. Owns the handle and closes it; movable, and safe to
// read from any thread. Libraries of the CUDA toolkit are looked for by toolkit_candidates().
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace w4tune {

class SharedLibrary {
 public:
  // Opens the first candidate (file name or path) that loads. On a miss throws Error{kEnvironment}:
  // "cannot load <what>: <why>. <remedy>". With `prefer_loaded` one that this process has loaded
  // already goes before all others: the library that PyTorch brought, say.
  static SharedLibrary open(std::span<const std::string> candidates, std::string_view what,
                            std::string_view remedy, bool prefer_loaded = false);

  SharedLibrary(SharedLibrary&& other) noexcept;
  SharedLibrary& operator=(SharedLibrary&& other) noexcept;
  SharedLibrary(const SharedLibrary&) = delete;
  SharedLibrary& operator=(const SharedLibrary&) = delete;
  ~SharedLibrary();

  // The function `name`, as the function pointer type T. Throws Error{kEnvironment} when the
  // library does not export it.
  template <typename T>
  [[nodiscard]] T symbol(const char* name) const {
    return reinterpret_cast<T>(address_of(name));
  }

  // The candidate that was opened.
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  SharedLibrary(void* handle, std::string path, std::string_view what, std::string_view remedy);
  [[nodiscard]] void* address_of(const char* name) const;

  void* handle_ = nullptr;
  std::string path_;
  std::string what_;
  std::string remedy_;
};

// Adds a folder that is looked in before all others for libraries of the toolkit; applies to
// libraries that were not opened yet.
void search_toolkit_in(std::string folder);
// That folder; "" without one.
std::string searched_toolkit_folder();

// Where "libnvrtc" or "libcublasLt" may be, newest supported version first: the folder of
// search_toolkit_in, then the loader's default path, then the toolkit's usual folders.
std::vector<std::string> toolkit_candidates(std::string_view stem);

}  // namespace w4tune
