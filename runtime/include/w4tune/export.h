// W4TUNE_API marks what libw4tune exports; everything else in the library is hidden. Usable from C.
#pragma once

#define W4TUNE_API __attribute__((visibility("default")))
