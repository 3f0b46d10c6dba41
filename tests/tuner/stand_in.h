// How a test directs the stand-in for the measuring process (stand_in/main.cc).
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace w4tune {

class StandInScript {
 public:
  // `name` tells tests apart that run at the same time.
  explicit StandInScript(const std::string& name)
      : log_(std::filesystem::path(W4TUNE_STAND_IN).parent_path() / (name + ".log")) {
    std::filesystem::remove(log_);
  }

  // What goes wrong in processes that are started from now on, and how.
  void set(const std::map<std::string, std::string>& what, int pause_ms = 0) const {
    nlohmann::json script = {{"log", log_.string()}, {"pause_ms", pause_ms}};
    script["do"] = nlohmann::json::object();
    for (const auto& [where, how] : what) script["do"][where] = how;
    ::setenv("W4_STAND_IN", script.dump().c_str(), 1);
  }

  // What the stand-ins noted since the last call.
  std::vector<std::string> take_log() const {
    std::vector<std::string> lines;
    {
      std::ifstream stream(log_);
      for (std::string line; std::getline(stream, line);) lines.push_back(line);
    }
    std::filesystem::remove(log_);
    return lines;
  }

 private:
  std::filesystem::path log_;
};

}  // namespace w4tune
