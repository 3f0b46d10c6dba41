// A report's data (cli/report_data.h) as one HTML file that needs nothing else, and its plots as
// SVG files.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace w4tune {

// The page. Whatever texts the data holds, none of them becomes markup or script.
std::string report_html(const nlohmann::json& data);

struct PlotFile {
  std::string name;  // "speedup.svg"
  std::string text;
};
// The page's plots in its light colours, drawn by the same scripts; of the searches the one with
// the most trials. The same data give the same bytes.
std::vector<PlotFile> report_plots(const nlohmann::json& data);

}  // namespace w4tune
