// Recorded spaces in files: what `replay` judges strategies on.
#pragma once

#include <string>
#include <vector>

#include "search/replay.h"

namespace w4tune {

// Reads what the file holds, by its first bytes: a Kernel Tuner cache file or a T4 file (JSON,
// plain or gzip; one space) or a cache file of w4tune (a space for each workload, with its families
// as contenders and the cost model's word where the model still knows the candidates). Costs are
// milliseconds in files of others and microseconds in ours.
//
// Throws Error{kNotFound} when the file can't be read and Error{kInvalidArgument} when it is none
// of these, is damaged, or holds no configuration that worked; the message says where.
std::vector<RecordedSpace> read_recorded(const std::string& path);

// For read_recorded: of a cache file of w4tune.
std::vector<RecordedSpace> read_recorded_trials(const std::string& path);

}  // namespace w4tune
