// Fleet: one tuning run in several processes, each with a GPU of its own, on one cache file.
//
// The leader hands out stretches of the plan, large ones first, so that all end at nearly the same
// time; a member tunes a stretch as a run of its own and asks for the next. They talk in lines of
// JSON over a socket that is the member's standard input and output. Results lie in the cache file;
// a message only says of which workload.
#pragma once

#include <string>
#include <vector>

#include "cache/store.h"
#include "tuner/options.h"

namespace w4tune {

struct FleetMember {
  std::string name;                  // "gpu1": for messages
  std::vector<std::string> command;  // a program that calls follow_fleet() on the same cache file
};

// Tunes options.plan by the members and returns what they found, in the order of the plan. When
// options.interrupted() says so, the members are interrupted (SIGINT) and waited for. A member that
// fails leaves its stretch; the others go on with what is left, and then the first failure is
// thrown: its Error, or Error{kDevice} for a process that died.
TuneResult lead_fleet(const TuneOptions& options, Store& store,
                      const std::vector<FleetMember>& members, TuneObserver& observer);

// What a member does: tunes the stretches of options.plan that it is given, on options.ordinal or,
// where `predicting`, by the cost model. An Error goes to the leader.
void follow_fleet(const TuneOptions& options, Store& store, bool predicting);

// This very command, as the member for the GPU `ordinal`.
FleetMember member_like_this(int ordinal, int threads);

}  // namespace w4tune
