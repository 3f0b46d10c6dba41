// Device sources with faults made on purpose: a copy of the embedded ones, in which chosen
// candidates of mma_reg go wrong.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "core/trial.h"
#include "templates/family.h"

namespace w4tune {

inline constexpr const char* kFaultyFamily = "mma_reg";

// Which candidates do what. All schedules of the one that does not compile share that.
struct Faults {
  Candidate hangs;
  Candidate illegal;  // writes where it may not
  Candidate wrong;
  Candidate no_compile;
};

// The first candidates of a ranking as faults; the configuration that does not compile is none of
// the others'. `count` of them had to be looked at.
inline Faults faults_among(const std::vector<Candidate>& ranked, std::size_t& count) {
  Faults faults{ranked.at(0), ranked.at(1), ranked.at(2), {}};
  for (count = 3; count < ranked.size(); ++count) {
    const KernelConfig& config = ranked[count].config;
    if (config == faults.hangs.config || config == faults.illegal.config ||
        config == faults.wrong.config) {
      continue;
    }
    faults.no_compile = ranked[count++];
    return faults;
  }
  ADD_FAILURE() << "the ranking has too few configurations";
  return faults;
}

// C++ that tells whether Config is this one: the constants of its source text, compared.
inline std::string is_config(const Candidate& candidate, const Problem& problem) {
  std::istringstream source(
      find_family(candidate.config.family)->source(candidate.config, problem));
  std::string condition = "true";
  for (std::string line; std::getline(source, line);) {
    std::istringstream words(line);
    std::array<std::string, 6> word;  // static constexpr int kName = value;
    for (std::string& each : word) words >> each;
    if (word[0] != "static" || word[4] != "=") continue;
    condition += " && Config::" + word[3] + " == " + word[5].substr(0, word[5].find(';'));
  }
  return condition;
}

// Writes the sources to `folder`.
inline void write_faulty_sources(const std::filesystem::path& folder, const Faults& faults,
                                 const Problem& problem) {
  const auto when = [&](const Candidate& candidate, const std::string& what) {
    return "  if constexpr (" + is_config(candidate, problem) +
           ") {\n    if (args.split_k == " + std::to_string(candidate.schedule.split_k) +
           " && args.raster == " + std::to_string(candidate.schedule.raster) + ") {\n      " +
           what + "\n    }\n  }\n";
  };
  const std::string code =
      "  static_assert(!(" + is_config(faults.no_compile, problem) +
      "), \"made not to compile\");\n" +
      when(faults.hangs, "while (true) asm volatile(\"nanosleep.u32 1000;\");") +
      when(faults.illegal, "*reinterpret_cast<volatile int*>(16) = 1;") +
      when(faults.wrong, "return;");
  const std::string entry = "void mma_reg(const GemmArgs& args) {\n";
  std::filesystem::create_directories(folder);
  const DeviceSources sources = device_sources_from("");
  bool edited = false;
  for (const Header& header : sources.headers) {
    std::string text = header.text;
    if (const auto at = text.find(entry); at != std::string::npos) {
      text.insert(at + entry.size(), code);
      edited = true;
    }
    std::ofstream(folder / header.name) << text;
  }
  std::ofstream(folder / "utility.cu") << sources.utilities;
  ASSERT_TRUE(edited) << "the entry of " << kFaultyFamily << " looks different now";
}

}  // namespace w4tune
