// Rows of text in aligned columns: what the commands print for people.
#pragma once

#include <string>
#include <vector>

namespace w4tune {

// The first row is the header. Columns are two spaces apart; those whose header begins with '>' are
// aligned to the right (the mark is not printed). Cells may be painted (cli/terminal.h).
std::string format_table(const std::vector<std::vector<std::string>>& rows);

}  // namespace w4tune
