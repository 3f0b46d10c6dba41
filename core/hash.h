// SHA-256 of bytes, in lower-case hexadecimal (libsodium).
#pragma once

#include <string>
#include <string_view>

namespace w4tune {

std::string sha256_hex(std::string_view bytes);

}  // namespace w4tune
