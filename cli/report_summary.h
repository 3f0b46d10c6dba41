// What a folder of reports holds, as one page of Markdown.
#pragma once

#include <string>
#include <vector>

#include "tuner/report_reader.h"

namespace w4tune {

// `plots`: the folder of a report's plots, from where the page lies. Reports keep their order.
struct SummarisedReport {
  Report report;
  std::string plots;
};

std::string folder_summary(const std::vector<SummarisedReport>& reports);

}  // namespace w4tune
