// W4_CHECK: a programmer's error ends the program with its place and reason, in release builds too.
#pragma once

#include <cstdio>
#include <cstdlib>

#define W4_CHECK(condition, message)                                                        \
  do {                                                                                      \
    if (!(condition)) {                                                                     \
      std::fprintf(stderr, "%s:%d: check failed: %s: %s\n", __FILE__, __LINE__, #condition, \
                   static_cast<const char*>(message));                                      \
      std::abort();                                                                         \
    }                                                                                       \
  } while (false)
