#include "tuner/report_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string_view>

#include "cache/store.h"
#include "core/stats.h"
#include "tuner/report.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

using nlohmann::json;

constexpr int kDeepestNesting = 16;
constexpr std::size_t kLongestQuote = 120;  // of a file's text in a message

// Without control characters, which could drive a terminal or break a line.
std::string printable(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return text;
}

std::string text_of(const json& value) {
  return printable(value.is_string() ? value.get<std::string>() : value.dump());
}

// Microseconds that a launch may take: a bound on what arithmetic must stand.
bool is_time(double time_us) { return time_us >= 1e-6 && time_us <= 1e12; }

bool is_clock(double clock_mhz) { return clock_mhz >= 1e-3 && clock_mhz <= 1e6; }

// A clock that could not be read is 0: all of a row are then as good as unknown.
std::vector<double> known_clocks(std::vector<double> clocks) {
  const bool known = std::all_of(clocks.begin(), clocks.end(), is_clock);
  return known ? std::move(clocks) : std::vector<double>{};
}

std::string read_bytes(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  std::string bytes;
  std::array<char, 1 << 16> buffer{};
  while (stream && bytes.size() <= kLargestReportBytes) {
    stream.read(buffer.data(), buffer.size());
    bytes.append(buffer.data(), static_cast<std::size_t>(stream.gcount()));
    if (is_cache_file(bytes)) break;
  }
  if (bytes.empty() && (stream.bad() || !stream.eof())) {
    throw Error(ErrorCode::kNotFound,
                fmt::format("report {} can't be read. Check the path.", path));
  }
  return bytes;
}

void add_baseline(ReportRow& row, ReportBaseline baseline) {
  if (row.baseline) {
    row.more_baselines.push_back(std::move(baseline));
  } else {
    row.baseline = std::move(baseline);
  }
}

// Takes a parsed report apart and says of what it cannot use where it stands.
class Parser {
 public:
  explicit Parser(const std::string& path) : path_(path) {}

  [[nodiscard]] Report parse(const std::string& bytes) const {
    const json document = document_of(bytes);
    check_schema(document);
    Report report;
    report.name = path_;
    const json& environment = member(document, "environment", "");
    if (!environment.is_object()) damaged("environment is not an object");
    for (const auto& [key, value] : environment.items()) {
      report.environment[printable(key)] = text_of(value);
    }
    const json& rows = member(document, "rows", "");
    if (!rows.is_array()) damaged("rows is not an array");
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const std::string where = fmt::format("rows[{}]", i);
      if (!rows[i].is_object()) damaged(where + " is not an object");
      if (rows[i].contains("time_us_median")) report.rows.push_back(row(rows[i], where));
    }
    return report;
  }

 private:
  [[noreturn]] void refuse(const std::string& message) const {
    throw Error(ErrorCode::kInvalidArgument, message);
  }
  [[noreturn]] void damaged(const std::string& what) const {
    refuse(fmt::format("report {} is damaged: {}. Write it again.", path_, what));
  }
  [[noreturn]] void foreign() const {
    refuse(
        fmt::format("{} is neither a report nor a cache file of w4tune. Write a report with "
                    "'w4tune tune --report FILE'.",
                    path_));
  }

  [[nodiscard]] json document_of(const std::string& bytes) const {
    if (bytes.size() > kLargestReportBytes) {
      refuse(fmt::format("{} is larger than {} MB: no report is. Check the path.", path_,
                         kLargestReportBytes >> 20));
    }
    const auto not_too_deep = [&](int depth, json::parse_event_t, json&) {
      if (depth > kDeepestNesting) damaged("it is nested too deeply");
      return true;
    };
    try {
      return json::parse(bytes, not_too_deep);
    } catch (const json::parse_error& error) {
      if (error.byte > bytes.size()) {
        damaged(fmt::format("it ends after {} bytes in the midst of its JSON", bytes.size()));
      }
      not_json(error.what());
    } catch (const json::out_of_range& error) {  // a number beyond double
      not_json(error.what());
    }
  }
  [[noreturn]] void not_json(std::string_view reason) const {
    // Without "[json.exception.parse_error.101] ".
    if (const auto mark = reason.find("] "); mark != std::string_view::npos) {
      reason.remove_prefix(mark + 2);
    }
    damaged(
        fmt::format("it is not JSON: {}", printable(std::string(reason.substr(0, kLongestQuote)))));
  }

  void check_schema(const json& document) const {
    if (!document.is_object() || !document.contains("schema") || !document["schema"].is_string()) {
      foreign();
    }
    const auto schema = document["schema"].get<std::string>();
    if (schema.rfind(kReportSchema, 0) != 0) foreign();
    int version = 0;
    const char* end = schema.data() + schema.size();
    const auto result = std::from_chars(schema.data() + kReportSchema.size(), end, version);
    if (result.ec != std::errc{} || result.ptr != end || version < 1) foreign();
    if (version > kReportVersion) {
      refuse(
          fmt::format("report {} is of version {}, and this w4tune reads up to version {}. Use "
                      "a newer w4tune.",
                      path_, version, kReportVersion));
    }
  }

  [[nodiscard]] const json& member(const json& object, const char* name,
                                   const std::string& where) const {
    const auto found = object.find(name);
    if (found == object.end()) {
      damaged(where.empty() ? fmt::format("{} is missing", name)
                            : fmt::format("{}.{} is missing", where, name));
    }
    return *found;
  }

  [[nodiscard]] std::string text(const json& object, const char* name,
                                 const std::string& where) const {
    const json& value = member(object, name, where);
    if (!value.is_string()) damaged(fmt::format("{}.{} is not a text", where, name));
    return printable(value.get<std::string>());
  }

  [[nodiscard]] int integer(const json& object, const char* name, const std::string& where) const {
    const json& value = member(object, name, where);
    constexpr std::int64_t kMost = 1 << 30;
    const bool fits = value.is_number_integer() && value.get<double>() >= 0.0 &&
                      value.get<double>() <= static_cast<double>(kMost);
    if (!fits) damaged(fmt::format("{}.{} is not a number from 0 to {}", where, name, kMost));
    return value.get<int>();
  }

  [[nodiscard]] double time_us(const json& value, const std::string& where) const {
    const double number = value.is_number() ? value.get<double>() : 0.0;
    if (!is_time(number)) damaged(fmt::format("{} is no time", where));
    return number;
  }

  [[nodiscard]] std::vector<double> samples(const json& object, const char* name,
                                            const std::string& where) const {
    const json& values = member(object, name, where);
    const std::string place = fmt::format("{}.{}", where, name);
    if (!values.is_array()) damaged(place + " is not an array");
    if (values.size() > kMostSamples) {
      damaged(fmt::format("{} has {} samples, more than {}", place, values.size(), kMostSamples));
    }
    std::vector<double> out;
    for (std::size_t i = 0; i < values.size(); ++i) {
      out.push_back(time_us(values[i], fmt::format("{}[{}]", place, i)));
    }
    return out;
  }

  [[nodiscard]] std::vector<double> clocks(const json& object, std::size_t samples,
                                           const std::string& where) const {
    const auto each = object.find("clock_mhz_samples");
    const auto middle = object.find("clock_mhz_median");
    std::vector<double> out;
    if (each != object.end()) {
      if (!each->is_array()) damaged(where + ".clock_mhz_samples is not an array");
      for (const json& clock : *each) {
        if (!clock.is_number()) damaged(where + ".clock_mhz_samples has what is not a number");
        out.push_back(clock.get<double>());
      }
      if (!out.empty() && out.size() != samples) {
        damaged(fmt::format("{} has {} clocks for {} samples", where, out.size(), samples));
      }
    } else if (middle != object.end() && middle->is_number()) {
      out.push_back(middle->get<double>());
    }
    return known_clocks(std::move(out));
  }

  [[nodiscard]] Timing timing(const json& object, const std::string& where) const {
    Timing timing;
    timing.time_us_median =
        time_us(member(object, "time_us_median", where), where + ".time_us_median");
    timing.time_us = samples(object, "time_us_samples", where);
    timing.clock_mhz = clocks(object, timing.time_us.size(), where);
    return timing;
  }

  [[nodiscard]] ReportRow row(const json& object, const std::string& where) const {
    ReportRow row;
    try {
      row.workload.problem = {parse_op(text(object, "op", where)), integer(object, "n", where),
                              integer(object, "k", where), integer(object, "group", where),
                              parse_dtype(text(object, "dtype", where))};
      validate(row.workload.problem);
      row.provenance = parse_provenance(text(object, "provenance", where));
    } catch (const Error& error) {
      const std::string message = error.what();
      if (message.rfind("report ", 0) == 0) throw;  // already says where
      refuse(fmt::format("report {} is damaged: {}: {}", path_, where, message));
    }
    row.workload.m = integer(object, "m", where);
    if (row.workload.m < 1) damaged(where + ".m is not positive");
    const auto composite = object.find("composite");
    if (composite != object.end() && composite->is_object() &&
        composite->contains("time_us_median")) {
      row.config = text(*composite, "config", where + ".composite");
      row.timing = timing(*composite, where + ".composite");
    } else {
      row.config = fmt::format("{} | split_k={} raster={}", text(object, "config", where),
                               integer(object, "split_k", where), integer(object, "raster", where));
      row.timing = timing(object, where);
    }
    for (ReportBaseline& each : baselines(object, where)) add_baseline(row, std::move(each));
    if (const auto floor = object.find("floor_us"); floor != object.end() && *floor != 0.0) {
      row.floor_us = time_us(*floor, where + ".floor_us");
    }
    row.dependent_us = median_of(object, "dependent", where);
    row.read_us = median_of(object, "read", where);
    row.serves = serves(object, where);
    return row;
  }

  [[nodiscard]] std::vector<ReportBaseline> baselines(const json& object,
                                                      const std::string& where) const {
    const json& entries = member(object, "baselines", where);
    if (!entries.is_object()) damaged(where + ".baselines is not an object");
    std::vector<ReportBaseline> out;
    for (const auto& [name, entry] : entries.items()) {
      const std::string place = where + ".baselines." + printable(name);
      if (!entry.is_object()) damaged(place + " is not an object");
      out.push_back({printable(name), text(entry, "detail", place), timing(entry, place)});
    }
    return out;
  }

  // Of a line that only bench measures.
  [[nodiscard]] std::optional<double> median_of(const json& object, const char* name,
                                                const std::string& where) const {
    const auto found = object.find(name);
    if (found == object.end()) return std::nullopt;
    const std::string place = fmt::format("{}.{}", where, name);
    if (!found->is_object()) damaged(place + " is not an object");
    return time_us(member(*found, "time_us_median", place), place + ".time_us_median");
  }

  [[nodiscard]] std::optional<ReportRow::Serves> serves(const json& object,
                                                        const std::string& where) const {
    if (!object.contains("m_lo")) return std::nullopt;
    const bool bounded = !member(object, "m_hi", where).is_null();
    return ReportRow::Serves{integer(object, "m_lo", where),
                             bounded ? integer(object, "m_hi", where) : kUnboundedM};
  }

  const std::string& path_;
};

// "13.0", or "12.9, 13.0" where runs differ.
template <class Member>
std::string joined(const std::vector<RunInfo>& runs, Member member) {
  std::vector<std::string> values;
  for (const RunInfo& run : runs) {
    if (std::find(values.begin(), values.end(), run.*member) == values.end()) {
      values.push_back(run.*member);
    }
  }
  return printable(fmt::format("{}", fmt::join(values, ", ")));
}

ReportRow row_of(const Winner& winner) {
  ReportRow row;
  row.workload = {winner.problem, winner.m};
  row.provenance = winner.provenance;
  row.config = served_text(winner);
  if (winner.composite) {
    row.timing = {winner.composite->time_us_median, winner.composite->time_us, {}};
  } else {
    row.timing = {winner.time_us_median, winner.time_us, known_clocks(winner.clock_mhz)};
  }
  if (is_time(winner.floor_us)) row.floor_us = winner.floor_us;
  row.serves = ReportRow::Serves{winner.m_lo, winner.m_hi};
  return row;
}

Report read_cache(const std::string& path, const std::function<bool(const DeviceInfo&)>& wanted) {
  const Store store = Store::open(path, Store::Mode::kReadOnly);
  std::vector<DeviceInfo> devices;
  for (const DeviceInfo& device : store.devices()) {
    if (wanted(device) && !store.winners(device).empty()) devices.push_back(device);
  }
  if (devices.empty()) {
    throw Error(ErrorCode::kNotFound,
                fmt::format("{} has no winners of the GPU in question. 'w4tune show --db {}' lists "
                            "what it has.",
                            path, path));
  }
  if (devices.size() > 1) {
    std::vector<std::string> names;
    for (const DeviceInfo& device : devices) names.push_back(device.name);
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} has winners of {} GPUs ({}). Choose one with --gpu.", path,
                            names.size(), fmt::join(names, ", ")));
  }
  const DeviceInfo& device = devices.front();
  const std::vector<RunInfo> runs = store.winner_runs(device);
  Report report;
  report.name = path;
  report.environment = {{"gpu", printable(device.name)},
                        {"sm", fmt::format("{}", device.sm)},
                        {"sm_count", fmt::format("{}", device.sm_count)},
                        {"l2_bytes", fmt::format("{}", device.l2_bytes)},
                        {"driver", joined(runs, &RunInfo::driver)},
                        {"nvrtc", joined(runs, &RunInfo::nvrtc)},
                        {"w4tune", joined(runs, &RunInfo::version)},
                        {"commit", joined(runs, &RunInfo::commit)},
                        {"source_hash", joined(runs, &RunInfo::source_hash)},
                        {"protocol", joined(runs, &RunInfo::protocol)},
                        {"protocol_hash", joined(runs, &RunInfo::protocol_hash)},
                        {"date", joined(runs, &RunInfo::started_at)}};
  for (const Winner& winner : store.winners(device)) report.rows.push_back(row_of(winner));
  for (const auto& [workload, baseline] : store.winner_baselines(device)) {
    for (ReportRow& row : report.rows) {
      if (row.workload != workload || baseline.time_us.empty()) continue;
      add_baseline(
          row, {printable(baseline.name),
                printable(baseline.detail),
                {median(baseline.time_us), baseline.time_us, known_clocks(baseline.clock_mhz)}});
    }
  }
  return report;
}

bool is_plausible(const Timing& timing) {
  return timing.time_us.size() <= kMostSamples && is_time(timing.time_us_median) &&
         std::all_of(timing.time_us.begin(), timing.time_us.end(), is_time);
}

// Sorted, and checked: a cache's numbers are as little to be trusted as a report's.
Report sound(Report report) {
  std::stable_sort(report.rows.begin(), report.rows.end(),
                   [](const ReportRow& a, const ReportRow& b) { return a.workload < b.workload; });
  const auto refuse = [&](const ReportRow& row, std::string_view what) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("report {} is damaged: {} {}. Write it again.", report.name,
                            to_string(row.workload), what));
  };
  for (std::size_t i = 0; i < report.rows.size(); ++i) {
    const ReportRow& row = report.rows[i];
    const auto plausible = [](const ReportBaseline& each) { return is_plausible(each.timing); };
    if (!is_plausible(row.timing) || (row.baseline && !plausible(*row.baseline)) ||
        !std::all_of(row.more_baselines.begin(), row.more_baselines.end(), plausible)) {
      refuse(row, "has what is no time, or too many of them");
    }
    if (i > 0 && report.rows[i - 1].workload == row.workload) refuse(row, "is there twice");
  }
  return report;
}

}  // namespace

Report parse_report(const std::string& bytes, const std::string& name) {
  return sound(Parser(name).parse(bytes));
}

Report read_report(const std::string& path, const std::function<bool(const DeviceInfo&)>& wanted) {
  const std::string bytes = read_bytes(path);
  if (!is_cache_file(bytes)) return parse_report(bytes, path);
  return sound(read_cache(path, wanted));
}

}  // namespace w4tune
