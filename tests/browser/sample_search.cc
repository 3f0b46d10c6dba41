// sample_search FILE.db COUNT...: a cache file for the browser test.
#include "tests/cli/sample_search.h"

#include <cstdlib>

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  std::vector<int> counts;
  for (int i = 2; i < argc; ++i) counts.push_back(std::atoi(argv[i]));
  w4tune::write_sample_searches(argv[1], counts);
  return 0;
}
