#include "cli/terminal.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace w4tune {

bool wants_colour() {
  const char* refused = std::getenv("NO_COLOR");
  if (refused != nullptr && *refused != '\0') return false;
  const char* terminal = std::getenv("TERM");
  if (terminal == nullptr || std::string_view(terminal) == "dumb") return false;
  return ::isatty(STDOUT_FILENO) == 1;
}

std::string painted(std::string_view text, Colour colour) {
  const auto in = [&](int code) { return fmt::format("\x1b[{}m{}\x1b[0m", code, text); };
  switch (colour) {
    case Colour::kNone: return std::string(text);
    case Colour::kGreen: return in(32);
    case Colour::kRed: return in(31);
    case Colour::kYellow: return in(33);
    case Colour::kBold: return in(1);
  }
  return std::string(text);
}

std::size_t display_width(std::string_view text) {
  std::size_t width = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\x1b') {
      i = std::min(text.find('m', i), text.size() - 1);
    } else if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) {
      ++width;
    }
  }
  return width;
}

}  // namespace w4tune
