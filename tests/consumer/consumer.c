/* The C ABI compiles as plain C11, links, and turns an error into a status and a message. */

#include <string.h>
#include <w4tune/w4tune.h>

int main(void) {
  w4tune_dispatcher* dispatcher = NULL;
  const w4tune_status status = w4tune_open("no such file", -1, "a40", &dispatcher);
  const int is_told = status == W4TUNE_NOT_FOUND && dispatcher == NULL &&
                      strstr(w4tune_last_error(), "no such file") != NULL;
  w4tune_close(dispatcher);
  const int is_named = strcmp(w4tune_match_name(W4TUNE_REFUSED), "refused") == 0;
  return is_told && is_named && w4tune_abi_version() == W4TUNE_ABI_VERSION ? 0 : 1;
}
