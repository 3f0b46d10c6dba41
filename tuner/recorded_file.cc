// Kernel Tuner cache files and T4 files.
#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cache/store.h"
#include "tuner/recorded.h"
#include "tuner/report.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

using nlohmann::json;

// What Kernel Tuner once wrote as the time of a configuration that failed.
constexpr double kFailedTime = 1e20;

[[noreturn]] void invalid(const std::string& path, const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, path + " " + what);
}

// zlib reads gzip and plain files alike.
std::string read_unpacked(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    invalid(path, "is a folder. Name a file in it.");
  }
  errno = 0;
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
  if (!file) {
    throw Error(ErrorCode::kNotFound,
                fmt::format("{} can't be read: {}. Name a Kernel Tuner cache file, a T4 file or a "
                            "cache file of w4tune.",
                            path, std::strerror(errno)));
  }
  std::string text;
  std::vector<char> chunk(std::size_t{1} << 20);
  int count = 0;
  while ((count = gzread(file.get(), chunk.data(), static_cast<unsigned>(chunk.size()))) > 0) {
    text.append(chunk.data(), static_cast<std::size_t>(count));
  }
  int code = Z_OK;
  const char* why = gzerror(file.get(), &code);
  if (count < 0 || code != Z_OK) {
    invalid(path, fmt::format("is damaged: its gzip data end early or are wrong ({}). Fetch it "
                              "again.",
                              code == Z_ERRNO ? std::strerror(errno) : why));
  }
  return text;
}

json parse(const std::string& path, const std::string& text) {
  try {
    return json::parse(text);
  } catch (const json::parse_error& error) {
    invalid(path, fmt::format("is not JSON: byte {} of {} does not fit. Where a tuning run was cut "
                              "off, finish the file with }}}}; else fetch it again.",
                              error.byte, text.size()));
  }
}

// One configuration as the file has it.
struct Entry {
  std::string where;  // "cache entry '16,1,...'"
  const json* configuration;
  double time = kFailed;
};

// A number is a time, text the name of a failure.
double time_of(const std::string& path, const std::string& where, const json& value) {
  if (value.is_string() || value.is_null()) return kFailed;
  if (!value.is_number() || !(value.get<double>() > 0.0)) {
    invalid(path, fmt::format("has a time that is neither a positive number nor a failure's name "
                              "in {}: {}. Mend or remove that entry.",
                              where, value.dump()));
  }
  const double time = value.get<double>();
  return time < kFailedTime ? time : kFailed;
}

std::vector<Entry> entries_of_cache(const std::string& path, const json& document) {
  std::vector<Entry> entries;
  for (const auto& [key, value] : document.at("cache").items()) {
    const std::string where = fmt::format("cache entry '{}'", key);
    if (!value.is_object() || !value.contains("time")) {
      invalid(path, fmt::format("has no time in {}. Mend or remove that entry.", where));
    }
    entries.push_back({where, &value, time_of(path, where, value.at("time"))});
  }
  return entries;
}

double time_of_result(const std::string& path, const std::string& where, const json& result) {
  if (result.value("invalidity", "correct") != "correct") return kFailed;
  for (const json& measurement : result.value("measurements", json::array())) {
    if (measurement.value("name", "") == "time" && measurement.contains("value")) {
      return time_of(path, where, measurement.at("value"));
    }
  }
  const json runtimes = result.value("times", json::object()).value("runtimes", json::array());
  double sum = 0.0;
  for (const json& runtime : runtimes) sum += time_of(path, where, runtime);
  if (runtimes.empty()) {
    invalid(path, fmt::format("has neither a measurement 'time' nor runtimes in {}. Mend or remove "
                              "that entry.",
                              where));
  }
  return sum / static_cast<double>(runtimes.size());
}

std::vector<Entry> entries_of_t4(const std::string& path, const json& document) {
  std::vector<Entry> entries;
  for (const json& result : document.at("results")) {
    const std::string where = fmt::format("result {}", entries.size());
    if (!result.is_object() || !result.contains("configuration") ||
        !result.at("configuration").is_object()) {
      invalid(path, fmt::format("has no configuration in {}. Mend or remove that entry.", where));
    }
    entries.push_back({where, &result.at("configuration"), time_of_result(path, where, result)});
  }
  return entries;
}

// A value as a number, also where it is text that reads as one.
std::optional<double> number_of(const json& value) {
  if (value.is_boolean()) return value.get<bool>() ? 1.0 : 0.0;
  if (value.is_number()) return value.get<double>();
  if (!value.is_string()) return std::nullopt;
  const std::string& text = value.get_ref<const std::string&>();
  std::size_t used = 0;
  try {
    const double number = std::stod(text, &used);
    if (used == text.size() && std::isfinite(number)) return number;
  } catch (const std::exception&) {  // text, then
  }
  return std::nullopt;
}

// The values a parameter takes in the file; a point holds their positions.
class Values {
 public:
  void add(const json& value) {
    texts_.push_back(value.is_string() ? value.get<std::string>() : value.dump());
    const std::optional<double> number = number_of(value);
    if (!number) ordered_ = false;
    numbers_.push_back(number.value_or(0.0));
  }

  // Positions of the values in the order they were added: by number, else by name.
  [[nodiscard]] std::vector<int> positions() const {
    return ordered_ ? positions_in(numbers_) : positions_in(texts_);
  }
  [[nodiscard]] bool is_ordered() const { return ordered_; }

 private:
  template <class T>
  static std::vector<int> positions_in(const std::vector<T>& values) {
    std::vector<T> sorted = values;
    std::sort(sorted.begin(), sorted.end());
    sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
    std::vector<int> positions;
    for (const T& value : values) {
      const auto at = std::lower_bound(sorted.begin(), sorted.end(), value);
      positions.push_back(static_cast<int>(at - sorted.begin()));
    }
    return positions;
  }

  std::vector<std::string> texts_;
  std::vector<double> numbers_;
  bool ordered_ = true;
};

RecordedSpace space_of(const std::string& path, const std::string& name,
                       const std::vector<std::string>& parameters,
                       const std::vector<Entry>& entries) {
  std::vector<Point> points(entries.size());
  std::vector<Parameter> axes;
  for (const std::string& parameter : parameters) {
    Values values;
    for (const Entry& entry : entries) {
      if (!entry.configuration->contains(parameter)) {
        invalid(path, fmt::format("has no parameter {} in {}. Mend or remove that entry.",
                                  parameter, entry.where));
      }
      values.add(entry.configuration->at(parameter));
    }
    const std::vector<int> positions = values.positions();
    Parameter axis{parameter, {}, values.is_ordered()};
    for (int i = 0; i <= *std::max_element(positions.begin(), positions.end()); ++i) {
      axis.values.push_back(i);
    }
    for (std::size_t i = 0; i < points.size(); ++i) points[i].push_back(positions[i]);
    axes.push_back(std::move(axis));
  }
  RecordedSpace recorded;
  recorded.name = name;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const bool is_new = recorded.costs.emplace(Choice{0, points[i]}, entries[i].time).second;
    if (!is_new) {
      invalid(path, fmt::format("has the configuration of {} twice. Remove one of them.",
                                entries[i].where));
    }
  }
  recorded.spaces.push_back(Space::of_points(std::move(axes), std::move(points)));
  if (recorded.best() == kFailed) {
    invalid(path, "has no configuration that worked: there is nothing to find. Record more of it.");
  }
  return recorded;
}

std::vector<std::string> keys_of(const json& object) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) keys.push_back(key);
  return keys;
}

RecordedSpace read_document(const std::string& path, const json& document) {
  const auto is = [&](const char* key, bool (json::*type)() const) {
    return document.is_object() && document.contains(key) && (document.at(key).*type)();
  };
  std::vector<Entry> entries;
  std::vector<std::string> parameters;
  std::string name = std::filesystem::path(path).filename().string();
  if (is("cache", &json::is_object) && is("tune_params_keys", &json::is_array)) {
    for (const json& key : document.at("tune_params_keys")) parameters.push_back(key);
    entries = entries_of_cache(path, document);
    name = fmt::format("{}: {} on {}", name, document.value("kernel_name", "a kernel"),
                       document.value("device_name", "a device"));
  } else if (is("results", &json::is_array) && is("schema_version", &json::is_string)) {
    entries = entries_of_t4(path, document);
    if (!entries.empty()) parameters = keys_of(*entries.front().configuration);
  } else if (is("schema", &json::is_string) &&
             document.at("schema").get_ref<const std::string&>().rfind(kReportSchema, 0) == 0) {
    invalid(path,
            "is a report of w4tune, which has winners alone. Replay the cache file (--db) that it "
            "was made with.");
  } else {
    invalid(path,
            "is neither a Kernel Tuner cache file (tune_params_keys, cache) nor a T4 file "
            "(schema_version, results). Name one of those or a cache file of w4tune.");
  }
  if (entries.empty() || parameters.empty()) {
    invalid(path, "holds no configurations. Record some of them first.");
  }
  return space_of(path, name, parameters, entries);
}

}  // namespace

std::vector<RecordedSpace> read_recorded(const std::string& path) {
  const std::string text = read_unpacked(path);
  if (is_cache_file(text)) return read_recorded_trials(path);
  const json document = parse(path, text);
  try {
    std::vector<RecordedSpace> spaces;
    spaces.push_back(read_document(path, document));
    return spaces;
  } catch (const json::exception& error) {
    invalid(path, fmt::format("has a value of a wrong kind: {}. Mend or remove it.", error.what()));
  }
}

}  // namespace w4tune
