#include "cli/table.h"

#include <algorithm>

#include "cli/terminal.h"

namespace w4tune {

std::string format_table(const std::vector<std::vector<std::string>>& rows) {
  if (rows.empty()) return {};
  const std::size_t columns = rows.front().size();
  std::vector<bool> right(columns);
  std::vector<std::size_t> widths(columns, 0);
  std::vector<std::vector<std::string>> cells = rows;
  for (std::size_t c = 0; c < columns; ++c) {
    right[c] = cells[0][c].rfind('>', 0) == 0;
    if (right[c]) cells[0][c].erase(0, 1);
    for (const auto& row : cells) widths[c] = std::max(widths[c], display_width(row[c]));
  }
  std::string out;
  for (const auto& row : cells) {
    std::string line;
    for (std::size_t c = 0; c < columns; ++c) {
      if (c > 0) line += "  ";
      const std::string space(widths[c] - display_width(row[c]), ' ');
      line += right[c] ? space + row[c] : row[c] + space;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

}  // namespace w4tune
