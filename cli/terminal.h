// Colour on standard output, where a person looks at it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace w4tune {

enum class Colour { kNone, kGreen, kRed, kYellow, kBold };

// Standard output is a terminal, NO_COLOR is not set (no-color.org) and TERM is not "dumb".
bool wants_colour();

// The text as it is for kNone, else in that colour.
std::string painted(std::string_view text, Colour colour);

// Columns the text takes: colours take none, a UTF-8 character one.
std::size_t display_width(std::string_view text);

}  // namespace w4tune
