// StatusLine: one line on standard error that rewrites itself on a terminal; elsewhere nothing but
// lines that stay.
#pragma once

#include <chrono>
#include <string>

namespace w4tune {

class StatusLine {
 public:
  explicit StatusLine(bool quiet);
  StatusLine(const StatusLine&) = delete;
  StatusLine& operator=(const StatusLine&) = delete;
  ~StatusLine();

  [[nodiscard]] bool is_terminal() const { return terminal_; }
  // When the line was last rewritten.
  [[nodiscard]] std::chrono::steady_clock::time_point last() const { return last_; }

  void show(const std::string& line);   // rewrites the line, on a terminal and unless quiet
  void print(const std::string& line);  // a line that stays
  void clear();

 private:
  bool quiet_;
  bool terminal_;
  bool shown_ = false;
  std::chrono::steady_clock::time_point last_;
};

// "42s", "3m07s"
std::string duration_text(double seconds);

}  // namespace w4tune
