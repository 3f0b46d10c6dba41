/* The C ABI compiles as plain C99, links and answers. */

#include <string.h>
#include <w4tune/w4tune.h>

int main(void) {
  w4tune_dispatcher* dispatcher = NULL;
  const w4tune_problem problem = {W4TUNE_GEMM, 4096, 1024, 128, W4TUNE_F16};
  size_t weight_bytes = 0;
  size_t scale_bytes = 0;
  if (w4tune_packed_sizes(&problem, &weight_bytes, &scale_bytes) != W4TUNE_OK) return 1;
  if (weight_bytes != 4096 * 1024 / 2 || scale_bytes != 4096 * 8 * 2) return 2;
  if (w4tune_open("no-such-file.db", -1, "a40", &dispatcher) != W4TUNE_NOT_FOUND) return 3;
  if (strstr(w4tune_last_error(), "no-such-file.db") == NULL) return 4;
  return strcmp(w4tune_match_name(W4TUNE_EXACT), "exact") == 0 ? 0 : 5;
}
