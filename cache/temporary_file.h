// TemporaryFile: a database file that is gone, with what SQLite puts beside it, when this goes.
#pragma once

#include <unistd.h>

#include <string>
#include <utility>

namespace w4tune {

class TemporaryFile {
 public:
  // Removes what an earlier run left under this name.
  explicit TemporaryFile(std::string path) : path_(std::move(path)) { remove(); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() { remove(); }

  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  void remove() noexcept {
    for (const char* suffix : {"", "-journal", "-wal", "-shm"}) {
      ::unlink((path_ + suffix).c_str());
    }
  }

  std::string path_;
};

}  // namespace w4tune
