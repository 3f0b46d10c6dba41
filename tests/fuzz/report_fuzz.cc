// libFuzzer: whatever bytes are taken for a report, they are read, or refused in one line, and what
// was read can be compared. Seeds are the reports in results/:
//
//   cmake --preset fuzz && cmake --build --preset fuzz
//   mkdir corpus && build/fuzz/tests/w4tune_report_fuzz -max_total_time=600 -max_len=65536 corpus
//   SEEDS
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "core/check.h"
#include "tuner/comparison.h"
#include "tuner/report_reader.h"
#include "w4tune/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace w4tune;  // NOLINT(google-build-using-namespace): a function's
  try {
    const Report report = parse_report({reinterpret_cast<const char*>(data), size}, "fuzzed");
    if (report.rows.empty()) return 0;
    const Comparison comparison = compare_reports({report, report}, {}).front();
    W4_CHECK(comparison.rows.size() == report.rows.size(), "each row has itself as a partner");
    W4_CHECK(comparison.count(Verdict::kFaster) + comparison.count(Verdict::kSlower) == 0,
             "nothing differs from itself");
  } catch (const Error& error) {
    const std::string_view message = error.what();
    W4_CHECK(error.code() == ErrorCode::kInvalidArgument, "a report is refused as input");
    for (const char c : message) {
      W4_CHECK(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f,
               "one line without control codes");
    }
  }
  return 0;
}
