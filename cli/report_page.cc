#include "cli/report_page.h"

#include <fmt/format.h>

#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>

#include "cli/script.h"
#include "core/check.h"
#include "core/hash.h"
#include "generated/page_files.h"
#include "generated/version.h"

namespace w4tune {
namespace {

using nlohmann::json;

constexpr const char* kLibrary = "d3.min.js";
// What draws, in an order that defines before it uses.
constexpr std::array kPlotScripts = {"marks.js",  "rows.js",       "plots.js",
                                     "search.js", "difference.js", "figures.js"};
constexpr double kPlotWidth = 960.0;  // of an SVG file, pixels

void replace_all(std::string& text, std::string_view what, std::string_view with) {
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + with.size())) {
    text.replace(at, what.size(), with);
  }
}

std::string escaped(std::string text) {
  replace_all(text, "&", "&amp;");
  replace_all(text, "<", "&lt;");
  replace_all(text, ">", "&gt;");
  replace_all(text, "\"", "&quot;");
  return text;
}

// JSON within a <script>: no '<', so nothing in it ends the element or begins a comment. Bytes that
// are not UTF-8 become the replacement character.
std::string embedded(const json& data) {
  std::string text = data.dump(-1, ' ', false, json::error_handler_t::replace);
  replace_all(text, "<", "\\u003c");
  return text;
}

// Replaces "@name@" by the values, and looks at no value again.
std::string filled(std::string_view form, const std::map<std::string, std::string>& values) {
  std::string out;
  while (!form.empty()) {
    const auto begin = form.find('@');
    const auto end = form.find('@', begin + 1);
    if (begin == std::string_view::npos || end == std::string_view::npos) break;
    const auto value = values.find(std::string(form.substr(begin + 1, end - begin - 1)));
    const bool known = value != values.end();
    out += known ? form.substr(0, begin) : form.substr(0, end);
    if (known) out += value->second;
    form.remove_prefix(known ? end + 1 : end);
  }
  return out + std::string(form);
}

std::string title_of(const json& data) {
  const json& reports = data.at("reports");
  std::string names;
  for (const json& report : reports) {
    const json& environment = report.at("environment");
    const std::string name = reports.size() == 1 && environment.contains("gpu")
                                 ? environment.at("gpu").get<std::string>()
                                 : report.at("name").get<std::string>();
    names += (names.empty() ? "" : " and ") + name;
  }
  return "w4tune report: " + names;
}

// "var(--ink)" becomes "#1b1f24", by the :root rule that begins the style sheet: programs that read
// SVG know classes, but few know variables.
std::string without_variables(std::string_view style) {
  const auto begin = style.find(":root {");
  const auto end = style.find('}', begin);
  W4_CHECK(begin != std::string_view::npos && end != std::string_view::npos,
           "plots.css begins with its colours");
  std::string_view colours = style.substr(begin + 7, end - begin - 7);
  std::string out(style.substr(end + 1));
  while (true) {
    const auto name = colours.find("--");
    if (name == std::string_view::npos) break;
    colours.remove_prefix(name);
    const auto colon = colours.find(':');
    const auto semicolon = colours.find(';');
    std::string_view value = colours.substr(colon + 1, semicolon - colon - 1);
    value.remove_prefix(value.find_first_not_of(' '));
    replace_all(out, fmt::format("var({})", colours.substr(0, colon)), value);
    colours.remove_prefix(semicolon);
  }
  W4_CHECK(out.find("var(") == std::string::npos, "plots.css uses a colour it does not name");
  return out;
}

}  // namespace

std::string report_html(const json& data) {
  const std::string document = embedded(data);
  // Nobody can know it before the data is known, and it is the same for the same data.
  const std::string nonce = sha256_hex(document).substr(0, 32);
  const auto file = [](std::string_view name) { return std::string(page::text(name)); };
  std::string script;
  for (const char* name : kPlotScripts) script += file(name);
  return filled(page::text("page.html"),
                {{"nonce", nonce},
                 {"title", escaped(title_of(data))},
                 {"style", file("plots.css") + file("page.css")},
                 {"tool", fmt::format("w4tune {} ({})", kVersion, kCommit)},
                 {"licence", escaped(file("copyright"))},
                 {"data", document},
                 {"d3", file(kLibrary)},
                 {"script", script + file("page.js")}});
}

std::vector<PlotFile> report_plots(const json& data) {
  Script script;
  script.run(kLibrary, page::text(kLibrary));
  for (const char* name : kPlotScripts) script.run(name, page::text(name));
  const std::string style = without_variables(page::text("plots.css"));
  std::vector<PlotFile> files;
  const std::string figures = script.call("w4figures", "files", embedded(data), kPlotWidth);
  for (const json& figure : json::parse(figures)) {
    std::string svg = figure.at("svg").get<std::string>();
    svg.insert(svg.find('>') + 1,
               fmt::format("<style>{}</style><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>",
                           style));
    files.push_back({figure.at("id").get<std::string>() + ".svg", svg + "\n"});
  }
  return files;
}

}  // namespace w4tune
